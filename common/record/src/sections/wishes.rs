//! Reading what may be given in several forms. Not by serde's untagged enums, whose errors say neither where nor in people's words.

use super::{MountWish, PortWish, Quantity};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// What becomes of each form; one that is not taken is an error.
trait Forms<'de>: Sized {
    const EXPECTED: &'static str;

    fn of_text(text: String) -> Self;

    fn of_integer(_: i64) -> Option<Self> {
        None
    }

    fn of_float(_: f64) -> Option<Self> {
        None
    }

    fn of_object<A: MapAccess<'de>>(object: A) -> Result<Self, A::Error>;
}

struct Reader<T>(PhantomData<T>);

impl<'de, T: Forms<'de>> Visitor<'de> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::of_integer(number).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        let read = i64::try_from(number).ok().and_then(T::of_integer).or_else(|| T::of_float(number as f64));
        read.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        T::of_float(number).ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok(T::of_text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<T, E> {
        Ok(T::of_text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
        T::of_object(object)
    }
}

impl<'de> Forms<'de> for Quantity {
    const EXPECTED: &'static str = "a number, or a text such as \"512m\"";

    fn of_text(text: String) -> Quantity {
        Quantity::Text(text)
    }

    fn of_integer(number: i64) -> Option<Quantity> {
        Some(Quantity::Integer(number))
    }

    fn of_float(number: f64) -> Option<Quantity> {
        Some(Quantity::Float(number))
    }

    fn of_object<A: MapAccess<'de>>(_: A) -> Result<Quantity, A::Error> {
        Err(A::Error::invalid_type(Unexpected::Map, &Self::EXPECTED))
    }
}

impl<'de> Forms<'de> for MountWish {
    const EXPECTED: &'static str = "a mount, or a text such as \"/source:/target:ro\"";

    fn of_text(text: String) -> MountWish {
        MountWish::Text(text)
    }

    fn of_object<A: MapAccess<'de>>(object: A) -> Result<MountWish, A::Error> {
        Deserialize::deserialize(MapAccessDeserializer::new(object)).map(MountWish::Mount)
    }
}

impl<'de> Forms<'de> for PortWish {
    const EXPECTED: &'static str = "a port, its number, or a text such as \"8080:80\"";

    fn of_text(text: String) -> PortWish {
        PortWish::Text(text)
    }

    fn of_integer(number: i64) -> Option<PortWish> {
        u16::try_from(number).ok().map(PortWish::Number)
    }

    fn of_object<A: MapAccess<'de>>(object: A) -> Result<PortWish, A::Error> {
        Deserialize::deserialize(MapAccessDeserializer::new(object)).map(PortWish::Port)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Quantity, D::Error> {
        reader.deserialize_any(Reader(PhantomData))
    }
}

impl<'de> Deserialize<'de> for MountWish {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<MountWish, D::Error> {
        reader.deserialize_any(Reader(PhantomData))
    }
}

impl<'de> Deserialize<'de> for PortWish {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<PortWish, D::Error> {
        reader.deserialize_any(Reader(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use crate::Record;

    #[test]
    fn wrong_forms_are_told_where_they_are() {
        for (config, place, words) in [
            (r#"{"memory":[]}"#, "config.memory", "512m"),
            (r#"{"memory":{"a":1}}"#, "config.memory", "512m"),
            (r#"{"cpus":true}"#, "config.cpus", "a number"),
            (r#"{"mounts":["/a:/b",7]}"#, "config.mounts[1]", "a mount"),
            (r#"{"mounts":[{"target":"/b","options":"ro"}]}"#, "config.mounts[0].options", "a sequence"),
            (r#"{"ports":[70000]}"#, "config.ports[0]", "8080:80"),
            (r#"{"ports":[1.5]}"#, "config.ports[0]", "8080:80"),
        ] {
            let record = Record::parse(&format!(r#"{{"staves":1,"config":{config}}}"#)).unwrap();
            let fault = record.get::<crate::Config>("config").unwrap_err().to_string();
            assert!(fault.contains(&format!("{place}: ")) && fault.contains(words), "{config}: {fault}");
        }
    }
}
