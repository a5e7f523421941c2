//! Enumerations of the records by name, as the journal keeps them in JSON. A name that a newer version wrote is read as not
//! specified.

macro_rules! by_name {
    ($module:ident, $enumeration:ident, [$($variant:ident),+]) => {
        pub(crate) mod $module {
            use std::borrow::Cow;

            use serde::{Deserialize, Deserializer, Serializer};

            use crate::$enumeration;

            pub(crate) fn serialize<S: Serializer>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($enumeration::try_from(*value).unwrap_or_default().name())
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
                let name = Cow::<'de, str>::deserialize(deserializer)?;
                let known = [$($enumeration::$variant),+].into_iter().find(|value| value.name() == name);
                Ok(known.unwrap_or_default().into())
            }
        }
    };
}

by_name!(container_kind, ContainerKind, [App, Init, Sidecar, Ephemeral]);
by_name!(source, Source, [Kubelet, PodWatch, LogOrdinal]);
by_name!(lines_from, LinesFrom, [LogFile, ApiServer]);
