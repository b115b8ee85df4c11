//! The history of an image configuration beside its layers (OCI image spec, config.md, `history`).

use record::Image;
use serde::Serialize;
use serde_json::Value;

/// One step; what the image does not say is `None`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Step {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It changed the configuration alone.
    pub empty_layer: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<String>,
    /// Bytes of the layer as it is stored and sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// The latest step first. Steps beyond the layers stay without one, and layers beyond the steps are steps of which nothing else
/// is known: the history is what somebody wrote and need not fit.
pub fn of(image: &Image) -> Vec<Step> {
    let told = image.config.get("history").and_then(Value::as_array);
    let mut layers = image.layers.iter();
    let mut steps = Vec::new();
    for entry in told.into_iter().flatten() {
        let text = |member: &str| entry.get(member).and_then(Value::as_str).map(str::to_owned);
        let empty_layer = entry.get("empty_layer").and_then(Value::as_bool).unwrap_or(false);
        let mut step = Step {
            created: text("created"),
            created_by: text("created_by"),
            author: text("author"),
            comment: text("comment"),
            empty_layer,
            ..Step::default()
        };
        if !empty_layer && let Some(layer) = layers.next() {
            add(&mut step, layer);
        }
        steps.push(step);
    }
    steps.extend(layers.map(|layer| {
        let mut step = Step::default();
        add(&mut step, layer);
        step
    }));
    steps.reverse();
    steps
}

fn add(step: &mut Step, layer: &record::Layer) {
    step.digest = Some(layer.digest.clone());
    step.diff_id = Some(layer.diff_id.clone());
    step.size = Some(layer.size);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(history: &Value, layers: u64) -> Image {
        let layers: Vec<Value> = (0..layers)
            .map(|n| json!({"digest": format!("sha256:{n}"), "diff_id": format!("sha256:d{n}"), "size": n, "media_type": ""}))
            .collect();
        serde_json::from_value(
            json!({"reference": "x", "digest": "sha256:x", "config": {"history": history}, "layers": layers}),
        )
        .unwrap()
    }

    #[test]
    fn steps_have_their_layers() {
        let told =
            json!([{"created_by": "ADD"}, {"created_by": "CMD", "empty_layer": true}, {"created_by": "RUN"}]);
        let steps = of(&image(&told, 2));
        let seen: Vec<_> =
            steps.iter().map(|step| (step.created_by.as_deref(), step.digest.as_deref())).collect();
        assert_eq!(
            seen,
            [(Some("RUN"), Some("sha256:1")), (Some("CMD"), None), (Some("ADD"), Some("sha256:0"))]
        );
    }

    #[test]
    fn a_history_that_does_not_fit() {
        assert_eq!(of(&image(&json!(null), 2)).len(), 2);
        assert_eq!(of(&image(&json!("no list"), 1)).len(), 1);
        let longer = of(&image(&json!([{}, 7, {"created": 5}]), 1));
        assert_eq!(longer.iter().filter(|step| step.digest.is_some()).count(), 1);
        let shorter = of(&image(&json!([{"created_by": "ADD"}]), 2));
        assert_eq!((shorter[0].created_by.as_deref(), shorter[1].created_by.as_deref()), (None, Some("ADD")));
    }
}
