//! What would be done, for `--dry-run`: looks, and makes nothing.

use crate::{Args, stages};
use cli::{Context, Explain, Result};
use oci::wishes::NetworkMode;
use record::{Config, Record};
use serde_json::{Value, json};
use store::Store;

/// Prints the steps, one a line. What depends on an image that is not here yet is left open.
pub fn print(
    args: &Args,
    context: &mut Context,
    store: &Store,
    image: Option<&str>,
    config: Config,
) -> Result<()> {
    let mut steps: Vec<Value> = Vec::new();
    let mut record = Record::new();
    let mut complete = true;
    if let Some(image) = image {
        if let Some(found) = stages::from_store_if_wanted(store, image, args)? {
            record = found;
        } else {
            steps.push(json!({"step": "pull", "image": image}));
            complete = false;
        }
        if complete {
            let described = record.require("image")?;
            let missing: Vec<String> =
                img_unpack::plan(store, &described)?.iter().map(|layer| layer.diff_id.clone()).collect();
            if missing.is_empty() {
                // Nothing is left to do for it.
                record.set("rootfs", &img_unpack::unpack(store, &described)?)?;
            } else {
                complete = false;
                steps.push(json!({"step": "unpack", "layers": missing}));
            }
        } else {
            steps.push(json!({"step": "unpack"}));
        }
    }
    if args.flags.rest.replace {
        steps.push(json!({"step": "remove", "name": config.name}));
    }
    let network = NetworkMode::of(&config)?;
    let mut create = json!({"step": "create"});
    if complete {
        let plan = ctr_create::dry_run(store, &record, config, &mut |warning| context.warn("", warning))?;
        let plan = serde_json::to_value(&plan).explain(|| "write the plan".into())?;
        create
            .as_object_mut()
            .into_iter()
            .for_each(|step| step.extend(plan.as_object().cloned().unwrap_or_default()));
    }
    steps.push(create);
    if matches!(network, NetworkMode::Bridge | NetworkMode::Private) {
        steps.push(json!({"step": "attach_network"}));
    }
    steps.push(json!({"step": "start", "attach": !args.detach}));
    if args.rmi {
        steps.push(json!({"step": "remove_image", "image": image}));
    }
    steps.iter().try_for_each(|step| context.print(&format!("{step}\n")))
}
