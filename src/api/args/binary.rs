//! Binary: an argument, or a part of one, that travels as an attachment.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::{self, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::beside::{self, BESIDE};

/// A binary argument, or a binary part of one. Serialises as an attachment, deserialises from one and nothing else.
///
/// `Vec<u8>` is a list of numbers to serde. `bytes::Bytes` and `serde_bytes` also become attachments, yet cost a copy
/// each way, and cannot be read inside tagged or untagged enums and `#[serde(flatten)]`. `Binary` can, and costs none.
/// It is for packets: another format writes it as that format's bytes, and cannot read it back.
///
/// ```
/// use fanfare::args::{Binary, decode_event, encode_event};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, PartialEq, Debug)]
/// struct Photo {
///     title: String,
///     pixels: Binary,
/// }
///
/// let photo = Photo { title: "cat".into(), pixels: Binary::from(vec![1, 2, 3]) };
/// let packet = encode_event("photo", &photo).unwrap();
/// assert_eq!(packet.data, r#"["photo",{"title":"cat","pixels":{"_placeholder":true,"num":0}}]"#);
/// assert_eq!(decode_event::<Photo>(&packet.data, &packet.attachments), Ok(photo));
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Binary(pub Bytes);

impl From<Vec<u8>> for Binary {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Bytes> for Binary {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<&'static [u8]> for Binary {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Bytes::from_static(bytes))
    }
}

impl AsRef<[u8]> for Binary {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for Binary {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let _carried = beside::carry(vec![self.0.clone()]);
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PlaceholderVisitor)
    }
}

struct PlaceholderVisitor;

/// By hand and not derived: a derived one would also read `[true,0]`, and refuse two equal keys.
impl<'de> Visitor<'de> for PlaceholderVisitor {
    type Value = Binary;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a binary attachment")
    }

    /// Keys come in any order: the Swift client writes a dictionary.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Binary, A::Error> {
        let (mut marked, mut num) = (false, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "_placeholder" => marked = map.next_value()?,
                "num" => num = Some(map.next_value::<usize>()?),
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        let Some(num) = num.filter(|_| marked) else {
            return Err(de::Error::invalid_type(Unexpected::Map, &self));
        };
        BESIDE.with_borrow(|beside| match beside.attachments.get(num) {
            Some(bytes) => Ok(Binary(bytes.clone())),
            None => {
                let count = beside.attachments.len();
                Err(de::Error::custom(format_args!("there is no attachment {num}, the packet has {count}")))
            }
        })
    }
}
