//! One file for each provider: the fields it sends, and the columns they go to.

/// Declares the fields a provider is known to send and that go to columns, as an enum and the list
/// of their names. A field is spelled as it is sent; one within objects is followed by its path:
/// `title = "location.title"`.
macro_rules! fields {
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $path:literal) => { $path };
    ($enum:ident: $($field:ident $(= $path:literal)?)*) => {
        #[expect(non_camel_case_types, reason = "a variant is spelled as the field it names")]
        #[derive(Debug, Clone, Copy)]
        enum $enum { $($field),* }

        impl $enum {
            /// The names of the fields, each at its field's place.
            const NAMES: &[&str] = &[$(fields!(@name $field $($path)?)),*];
        }

        impl From<$enum> for usize {
            fn from(field: $enum) -> Self {
                field as Self
            }
        }
    };
}

pub(super) mod convertalk;
#[cfg(test)]
mod laws;
pub(super) mod whatconverts;
pub(super) mod whautomate;
