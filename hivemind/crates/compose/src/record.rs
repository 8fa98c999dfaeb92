//! Fields that are said once: from one list of them come the type, what is read, what is known besides, and what is printed.

use std::collections::BTreeMap;

use crate::{
    print::Out,
    reader::{At, Reader},
    spot::Located,
};

/// A value that is read from one node and printed as one.
pub(crate) trait Yaml: Sized {
    /// The value; none if it cannot be read, which is told.
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self>;
    /// The node that reads back as the same.
    fn print(&self) -> Out;
}

/// What a field holds: it may be left out.
pub(crate) trait Field: Sized {
    /// What a record has that does not say the field.
    fn absent() -> Self;
    /// What is said.
    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self;
    /// None if there is nothing to say.
    fn print(&self) -> Option<Out>;
}

/// A map of fields.
pub(crate) trait Record: Sized {
    const FIELDS: &'static [&'static str];
    /// All fields, unknown ones being told. `at` is a map.
    fn read_fields(reader: &mut Reader<'_>, at: &At<'_>) -> Self;
    /// The fields that say something.
    fn print_fields(&self) -> Vec<(String, Out)>;

    /// The record; none if `at` is no map.
    fn read_record(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Self> {
        reader.map(at, Self::FIELDS, &[]).then(|| Self::read_fields(reader, at))
    }
}

/// A struct whose fields are those of a map, and `impl Record` for it.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$of_field])* pub $field: $type,)+ }

        impl $crate::record::Record for $name {
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),+];

            fn read_fields(reader: &mut $crate::reader::Reader<'_>, at: &$crate::reader::At<'_>) -> Self {
                $name { $($field: match at.get(stringify!($field)) {
                    Some(at) => $crate::record::Field::read(reader, &at),
                    None => $crate::record::Field::absent(),
                },)+ }
            }

            fn print_fields(&self) -> Vec<(String, $crate::print::Out)> {
                let fields = [$((stringify!($field), $crate::record::Field::print(&self.$field))),+];
                fields.into_iter().filter_map(|(name, out)| Some((name.to_owned(), out?))).collect()
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $crate::record::Field::absent(),)+ }
            }
        }
    };
}
pub(crate) use record;

/// `impl Yaml` for records that have no other form.
macro_rules! only_as_map {
    ($($name:ty),+ $(,)?) => {$(
        impl $crate::record::Yaml for $name {
            fn read(reader: &mut $crate::reader::Reader<'_>, at: &$crate::reader::At<'_>) -> Option<Self> {
                <$name as $crate::record::Record>::read_record(reader, at)
            }

            fn print(&self) -> $crate::print::Out {
                $crate::print::Out::Map($crate::record::Record::print_fields(self))
            }
        }
    )+};
}
pub(crate) use only_as_map;

/// An enum of names, and `impl Yaml` for it.
macro_rules! choice {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$of_variant:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$of_variant])* $variant,)+ }

        impl $name {
            /// How it is written.
            $vis fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl $crate::record::Yaml for $name {
            fn read(reader: &mut $crate::reader::Reader<'_>, at: &$crate::reader::At<'_>) -> Option<Self> {
                reader.choice(at, &[$(($text, $name::$variant)),+])
            }

            fn print(&self) -> $crate::print::Out {
                $crate::print::Out::Text(self.as_str().to_owned())
            }
        }
    };
}
pub(crate) use choice;

impl<T: Yaml> Field for Option<Located<T>> {
    fn absent() -> Self {
        None
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        T::read(reader, at).map(|value| at.located(value))
    }

    fn print(&self) -> Option<Out> {
        self.as_ref().map(|located| located.value.print())
    }
}

impl<T: Yaml> Field for Vec<Located<T>> {
    fn absent() -> Self {
        Vec::new()
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        let mut read = Vec::new();
        for item in reader.list(at) {
            read.extend(T::read(reader, &item).map(|value| item.located(value)));
        }
        read
    }

    fn print(&self) -> Option<Out> {
        (!self.is_empty()).then(|| Out::List(self.iter().map(|located| located.value.print()).collect()))
    }
}

impl<T: Yaml> Field for BTreeMap<String, Located<T>> {
    fn absent() -> Self {
        BTreeMap::new()
    }

    fn read(reader: &mut Reader<'_>, at: &At<'_>) -> Self {
        if !reader.is_map(at) {
            return BTreeMap::new();
        }
        let mut read = BTreeMap::new();
        for (key, value) in at.pairs() {
            read.extend(T::read(reader, &value).map(|read| (key.to_owned(), value.located(read))));
        }
        read
    }

    fn print(&self) -> Option<Out> {
        (!self.is_empty()).then(|| print_map(self))
    }
}

/// A map of values, those without anything to say included.
pub(crate) fn print_map<T: Yaml>(map: &BTreeMap<String, Located<T>>) -> Out {
    Out::Map(map.iter().map(|(key, located)| (key.clone(), located.value.print())).collect())
}
