//! A map of which one thing matters: whether it has a key of some sort.
//!
//! Enters: JSON, such as annotations of up to 256 KiB. Leaves: a yes or a no; nothing else of it is kept. It must not know
//! what the keys mean.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A sort of keys.
pub trait Sort {
    /// What the map holds, for errors.
    const MAP: &'static str;

    fn is(key: &str) -> bool;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HasKey<S> {
    found: bool,
    sort: PhantomData<S>,
}

impl<S> HasKey<S> {
    pub fn is_true(&self) -> bool {
        self.found
    }
}

impl<'de, S: Sort> Deserialize<'de> for HasKey<S> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let found = input.deserialize_map(Look::<S>(PhantomData))?;
        Ok(Self { found, sort: PhantomData })
    }
}

/// Looks through a map, and at each key of it.
struct Look<S>(PhantomData<S>);

impl<'de, S: Sort> DeserializeSeed<'de> for Look<S> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl<'de, S: Sort> Visitor<'de> for Look<S> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(S::MAP)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<bool, M::Error> {
        let mut found = false;
        while let Some(is) = map.next_key_seed(Look::<S>(PhantomData))? {
            map.next_value::<IgnoredAny>()?;
            found |= is;
        }
        Ok(found)
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(S::is(key))
    }
}
