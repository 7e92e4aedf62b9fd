//! The type definitions of one gob stream, and skipping values of any type.
//!
//! Definitions that came before, byte for byte, are not read again: the same bytes define the same types.
//!
//! Bounds: definitions and fields by `limits`, recursion by `GOB_DEPTH_MAX`. Work is linear in the bytes: every element
//! of every value takes at least one.

use std::ops::Range;

use super::super::parts::Field;
use super::decode::{Malformed, Reader};
use crate::limits;

// Predefined type ids.
const BOOL: i64 = 1;
const FLOAT: i64 = 4;
pub(in super::super) const INT: i64 = 2;
pub(in super::super) const BYTES: i64 = 5;
pub(in super::super) const STRING: i64 = 6;
const COMPLEX: i64 = 7;
const INTERFACE: i64 = 8;
/// Lower ids are Go's own.
const FIRST_USER_ID: i64 = 64;

/// The definitions seen so far. Reused between frames, so that decoding allocates nothing for them.
#[derive(Debug, Default)]
pub(in super::super) struct Types {
    defined: Vec<(i64, Shape)>,
    /// Fields of all structs; each struct has a range.
    fields: Vec<StructField>,
    remembered: Remembered,
}

/// How a frame began, and what stood in [`Types`] after it.
#[derive(Debug, Default)]
struct Remembered {
    bytes: Vec<u8>,
    defined: usize,
    fields: usize,
}

/// What a user-defined type is.
#[derive(Clone, Debug)]
enum Shape {
    Struct(Range<usize>),
    /// Slice, or array with its length.
    List {
        element: i64,
        length: Option<i64>,
    },
    Map {
        key: i64,
        element: i64,
    },
    /// Encodes itself: a length and bytes.
    Opaque,
}

/// One field of a struct.
#[derive(Clone, Copy, Debug)]
pub(super) struct StructField {
    /// If it has the name of an envelope's field.
    pub(super) name: Option<Field>,
    pub(super) type_id: i64,
}

impl Types {
    /// Forgets what the last frame defined, but for the remembered definitions if this frame begins with them. Returns
    /// how many bytes of the frame they are.
    pub(super) fn recall(&mut self, frame: &[u8]) -> usize {
        if !frame.starts_with(&self.remembered.bytes) {
            self.remembered.bytes.clear();
            (self.remembered.defined, self.remembered.fields) = (0, 0);
        }
        self.defined.truncate(self.remembered.defined);
        self.fields.truncate(self.remembered.fields);
        self.remembered.bytes.len()
    }

    /// `bytes` define what is here now.
    pub(super) fn remember(&mut self, bytes: &[u8]) {
        if bytes.len() <= limits::GOB_REMEMBERED_BYTES {
            self.remembered.bytes.clear();
            self.remembered.bytes.extend_from_slice(bytes);
            (self.remembered.defined, self.remembered.fields) = (self.defined.len(), self.fields.len());
        }
    }

    fn find(&self, id: i64) -> Option<&Shape> {
        self.defined.iter().find(|(known, _)| *known == id).map(|(_, shape)| shape)
    }

    /// The fields of struct `id`, for [`Self::field`]; `None` if it is no struct.
    pub(super) fn struct_fields(&self, id: i64) -> Option<Range<usize>> {
        match self.find(id) {
            Some(Shape::Struct(fields)) => Some(fields.clone()),
            _ => None,
        }
    }

    pub(super) fn field(&self, index: usize) -> Option<StructField> {
        self.fields.get(index).copied()
    }

    /// Whether a value of this type can be read.
    pub(super) fn knows(&self, id: i64) -> bool {
        (BOOL..=INTERFACE).contains(&id) || self.find(id).is_some()
    }

    /// Reads the `wireType` that follows the negative id of a definition.
    pub(super) fn define(&mut self, negative_id: i64, message: &mut Reader<'_>) -> Result<(), Malformed> {
        let id = negative_id.checked_neg().ok_or(Malformed)?;
        if id < FIRST_USER_ID || self.find(id).is_some() || self.defined.len() >= limits::GOB_TYPES_MAX {
            return Err(Malformed);
        }
        let mut position = 0;
        let mut shape = None;
        while let Some(kind) = message.field(&mut position)? {
            if shape.is_some() {
                return Err(Malformed); // a type is one thing
            }
            shape = Some(self.read_shape(kind, message)?);
        }
        self.defined.push((id, shape.ok_or(Malformed)?));
        Ok(())
    }

    /// `kind` is the field of `wireType`: ArrayT, SliceT, StructT, MapT, and three for types that encode themselves.
    fn read_shape(&mut self, kind: usize, message: &mut Reader<'_>) -> Result<Shape, Malformed> {
        let (mut first, mut second) = (None, None);
        let fields_from = self.fields.len();
        let mut position = 0;
        while let Some(field) = message.field(&mut position)? {
            match (kind, field) {
                (0..=6, 0) => skip_common_type(message)?,
                (2, 1) => self.read_struct_fields(message)?,
                (0 | 1 | 3, 1) => first = Some(message.int()?),
                (0 | 3, 2) => second = Some(message.int()?),
                _ => return Err(Malformed),
            }
        }
        // What Go leaves out is zero: no type has id 0, so that a value of it is refused.
        let (first, second) = (first.unwrap_or(0), second.unwrap_or(0));
        Ok(match kind {
            0 => Shape::List { element: first, length: Some(second) },
            1 => Shape::List { element: first, length: None },
            2 => Shape::Struct(fields_from..self.fields.len()),
            3 => Shape::Map { key: first, element: second },
            _ => Shape::Opaque,
        })
    }

    fn read_struct_fields(&mut self, message: &mut Reader<'_>) -> Result<(), Malformed> {
        for _ in 0..message.count()? {
            let (mut name, mut type_id) = (&b""[..], 0);
            let mut position = 0;
            while let Some(field) = message.field(&mut position)? {
                match field {
                    0 => name = message.blob()?,
                    1 => type_id = message.int()?,
                    _ => return Err(Malformed),
                }
            }
            if name.is_empty() || self.fields.len() >= limits::GOB_FIELDS_MAX {
                return Err(Malformed);
            }
            self.fields.push(StructField { name: Field::by_gob_name(name), type_id });
        }
        Ok(())
    }

    /// Passes over one value.
    pub(super) fn skip(&mut self, id: i64, message: &mut Reader<'_>, depth: usize) -> Result<(), Malformed> {
        if depth >= limits::GOB_DEPTH_MAX {
            return Err(Malformed);
        }
        match id {
            BOOL..=FLOAT => message.uint().map(drop),
            BYTES | STRING => message.blob().map(drop),
            COMPLEX => message.uint().and_then(|_| message.uint()).map(drop),
            INTERFACE => self.skip_interface(message),
            _ => match self.find(id).cloned().ok_or(Malformed)? {
                Shape::Opaque => message.blob().map(drop),
                Shape::Struct(fields) => self.skip_struct(fields, message, depth),
                Shape::List { element, length } => {
                    let count = message.count()?;
                    if length.is_some_and(|length| usize::try_from(length) != Ok(count)) {
                        return Err(Malformed);
                    }
                    (0..count).try_for_each(|_| self.skip(element, message, depth + 1))
                }
                Shape::Map { key, element } => (0..message.count()?).try_for_each(|_| {
                    self.skip(key, message, depth + 1)?;
                    self.skip(element, message, depth + 1)
                }),
            },
        }
    }

    fn skip_struct(
        &mut self,
        fields: Range<usize>,
        message: &mut Reader<'_>,
        depth: usize,
    ) -> Result<(), Malformed> {
        let mut position = 0;
        while let Some(offset) = message.field(&mut position)? {
            let field = fields.clone().nth(offset).and_then(|index| self.field(index)).ok_or(Malformed)?;
            self.skip(field.type_id, message, depth + 1)?;
        }
        Ok(())
    }

    /// Name of the concrete type (empty: nil), definitions that were not sent before, type id, length and value.
    fn skip_interface(&mut self, message: &mut Reader<'_>) -> Result<(), Malformed> {
        if message.blob()?.is_empty() {
            return Ok(());
        }
        loop {
            let id = message.int()?;
            if id >= 0 {
                return message.blob().map(drop);
            }
            self.define(id, message)?;
            message.uint()?; // the length of what follows
        }
    }
}

/// `CommonType`: a name and an id, both without meaning here.
fn skip_common_type(message: &mut Reader<'_>) -> Result<(), Malformed> {
    let mut position = 0;
    while let Some(field) = message.field(&mut position)? {
        match field {
            0 => message.blob().map(drop)?,
            1 => message.int().map(drop)?,
            _ => return Err(Malformed),
        }
    }
    Ok(())
}
