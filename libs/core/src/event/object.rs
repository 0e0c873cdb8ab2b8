//! A JSON object of which some fields are known.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::unknown::MAX_IGNORED;
use super::value::Value;

/// Fields that are known by their names.
pub(super) trait Known<'de>: Default {
    /// Reads the value of the field `name` if it is known; answers whether it was there before.
    ///
    /// # Errors
    ///
    /// The reader's.
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<Option<bool>, A::Error>;

    /// The field `name` came twice. Which of the two was meant cannot be known.
    fn repeated(&mut self, name: String);

    /// Whether an object may have the unknown field `name` without anybody being told.
    fn is_extension(_name: &str) -> bool {
        false
    }

    /// Takes the names of the other unknown fields, the first [`MAX_IGNORED`].
    fn unknown(&mut self, names: Vec<Cow<'de, str>>);
}

/// A JSON value that should be an object of `T`: `None` if it is something else.
pub(super) struct Object<T>(pub(super) Option<T>);

impl<'de, T: Known<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

/// Puts the next value into `slot`; answers whether there was one before.
pub(super) fn fill<'de, A: MapAccess<'de>, V: Deserialize<'de>>(
    slot: &mut Option<V>,
    map: &mut A,
) -> Result<Option<bool>, A::Error> {
    Ok(Some(slot.replace(map.next_value()?).is_some()))
}

/// The names of an object's unknown fields. Most objects have none, and nearly all others a few.
#[derive(Default)]
struct Names<'a> {
    /// Those that somebody is told of, in their order.
    first: Vec<Cow<'a, str>>,
    others: HashSet<Cow<'a, str>>,
}

impl<'a> Names<'a> {
    /// Adds a name; answers whether it is new.
    fn insert(&mut self, name: Cow<'a, str>, is_extension: bool) -> bool {
        if self.first.contains(&name) {
            return false;
        }
        if is_extension || self.first.len() == MAX_IGNORED {
            return self.others.insert(name);
        }
        self.first.push(name);
        true
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Known<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = T::default();
        let mut unknown = Names::default();
        while let Some(Value::Text(name)) = map.next_key::<Value<'de>>()? {
            let repeated = if let Some(repeated) = fields.read(&name, &mut map)? {
                repeated
            } else {
                map.next_value::<IgnoredAny>()?;
                !unknown.insert(name.clone(), T::is_extension(&name))
            };
            if repeated {
                fields.repeated(name.into_owned());
            }
        }
        fields.unknown(unknown.first);
        Ok(Object(Some(fields)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Object(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Object(None))
    }
}
