//! A JSON object of which some fields are known.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

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

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Known<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = T::default();
        let mut unknown = HashSet::new();
        while let Some(Value::Text(name)) = map.next_key::<Value<'de>>()? {
            let repeated = if let Some(repeated) = fields.read(&name, &mut map)? {
                repeated
            } else {
                map.next_value::<IgnoredAny>()?;
                !unknown.insert(name.clone())
            };
            if repeated {
                fields.repeated(name.into_owned());
            }
        }
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
