//! The lists and maps of an object under review, in bounded number.
//!
//! Enters: JSON. Leaves: collections, or an error once one object has more entries than any real one could have. Text is
//! a bad measure of what it becomes: 7 MiB of `{},{},{}` would be hundreds of megabytes of containers.
//!
//! The number left is a thread's own because serde's derived code has no place to hand an argument through.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::core::selector::Labels;

/// Containers, volumes, labels, tolerations, values of selectors: all that is kept of one object. The largest entry, a
/// container with all that is made of it, is some 500 bytes.
pub const MAX_ENTRIES: usize = 10_000;

thread_local! {
    /// Objects that were asked for by ourselves (watches) are not bounded.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Puts back what held before, also after a panic.
struct Before(usize);

impl Drop for Before {
    fn drop(&mut self) {
        LEFT.set(self.0);
    }
}

/// Decodes one object within the bound.
pub(super) fn bounded<T>(decode: impl FnOnce() -> T) -> T {
    let _before = Before(LEFT.replace(MAX_ENTRIES));
    decode()
}

fn count<E: Error>() -> Result<(), E> {
    match LEFT.get().checked_sub(1) {
        Some(left) => {
            LEFT.set(left);
            Ok(())
        }
        None => Err(E::custom(format_args!(
            "it has more than {MAX_ENTRIES} containers, volumes, labels, tolerations and other entries"
        ))),
    }
}

/// A list; `null` is an empty one, as everywhere in the Kubernetes API.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    input.deserialize_option(List(PhantomData))
}

struct List<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_none<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Vec<T>, D::Error> {
        input.deserialize_seq(self)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut entries: S) -> Result<Vec<T>, S::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            count()?;
            list.push(entry);
        }
        Ok(list)
    }
}

/// A map of texts; `null` is an empty one.
pub(super) fn map<'de, D: Deserializer<'de>>(input: D) -> Result<Labels, D::Error> {
    input.deserialize_option(Map)
}

struct Map;

impl<'de> Visitor<'de> for Map {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of texts")
    }

    fn visit_none<E>(self) -> Result<Labels, E> {
        Ok(Labels::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Labels, D::Error> {
        input.deserialize_map(self)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut entries: M) -> Result<Labels, M::Error> {
        let mut map = Labels::new();
        while let Some((key, value)) = entries.next_entry()? {
            count()?;
            map.insert(key, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pod::{PodObject, read_object};
    use super::*;

    fn read(json: &str) -> Result<PodObject, String> {
        read_object(json).map_err(|error| error.to_string())
    }

    #[test]
    fn no_object_becomes_a_hundred_times_its_text() {
        let many = |entry: &str| format!("[{entry}{}]", format!(",{entry}").repeat(MAX_ENTRIES));
        let labels: Vec<String> = (0..=MAX_ENTRIES).map(|n| format!(r#""{n}":"""#)).collect();
        let of_affinity = |terms: &str| {
            format!(
                r#"{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":{terms}}}}}}}}}"#
            )
        };
        for spec in [
            format!(r#"{{"containers":{}}}"#, many("{}")),
            format!(r#"{{"initContainers":{}}}"#, many("{}")),
            format!(r#"{{"ephemeralContainers":{}}}"#, many("{}")),
            format!(r#"{{"volumes":{}}}"#, many("{}")),
            format!(r#"{{"tolerations":{}}}"#, many("{}")),
            format!(r#"{{"imagePullSecrets":{}}}"#, many("{}")),
            format!(r#"{{"nodeSelector":{{{}}}}}"#, labels.join(",")),
            of_affinity(&many("{}")),
            of_affinity(&format!(r#"[{{"matchExpressions":{}}}]"#, many("{}"))),
            of_affinity(&format!(r#"[{{"matchFields":[{{"values":{}}}]}}]"#, many(r#""""#))),
        ] {
            let told = read(&format!(r#"{{"spec":{spec}}}"#)).expect_err("too many");
            assert!(told.contains("more than 10000"), "{told}");
        }
        for metadata in
            [format!(r#"{{"labels":{{{}}}}}"#, labels.join(",")), format!(r#"{{"ownerReferences":{}}}"#, many("{}"))]
        {
            let told = read(&format!(r#"{{"metadata":{metadata}}}"#)).expect_err("too many");
            assert!(told.contains("more than 10000"), "{told}");
        }
    }

    #[test]
    fn the_bound_is_of_one_object_and_not_of_all_of_them() {
        let half = format!("[{{}}{}]", ",{}".repeat(MAX_ENTRIES / 2));
        let spec = |lists: &[&str]| {
            let lists: Vec<String> = lists.iter().map(|name| format!(r#""{name}":{half}"#)).collect();
            format!(r#"{{"spec":{{{}}}}}"#, lists.join(","))
        };
        for _ in 0..3 {
            assert!(read(&spec(&["containers"])).is_ok());
            assert!(read(&spec(&["containers", "volumes"])).is_err());
        }
    }
}
