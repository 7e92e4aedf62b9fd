//! Reads one gob value into the envelope's fields, as Go's decoder would (table in spec 2.2).

use std::borrow::Cow;

use super::super::parts::{Field, Parts};
use super::types::Types;

/// Not a gob stream that Go would decode into the envelope.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Malformed;

/// Decodes the first value of `frame`; what follows it is ignored. Fields that are not `known` are skipped.
pub(in super::super) fn decode<'a>(
    types: &mut Types,
    frame: &'a [u8],
    known: &[Field],
) -> Result<Parts<'a>, Malformed> {
    // Clients send the same definitions with every value.
    let known_bytes = types.recall(frame);
    let mut rest = Reader(frame.get(known_bytes..).unwrap_or_default());
    loop {
        let defined_bytes = frame.len() - rest.0.len();
        let mut message = Reader(rest.blob()?);
        let id = message.int()?;
        if id >= 0 {
            if defined_bytes > known_bytes {
                types.remember(frame.get(..defined_bytes).unwrap_or_default());
            }
            return value(types, id, message, known);
        }
        types.define(id, &mut message)?;
        if !message.0.is_empty() {
            return Err(Malformed);
        }
    }
}

fn value<'a>(
    types: &mut Types,
    id: i64,
    mut message: Reader<'a>,
    known: &[Field],
) -> Result<Parts<'a>, Malformed> {
    let fields = types.struct_fields(id).ok_or(Malformed)?;
    let mut matched = fields.is_empty();
    for index in fields.clone() {
        let field = types.field(index).ok_or(Malformed)?;
        match field.name.filter(|name| known.contains(name)) {
            Some(name) if field.type_id == name.gob_type() => matched = true,
            None if types.knows(field.type_id) => {}
            _ => return Err(Malformed), // checked even for fields that the value leaves out, as Go does
        }
    }
    if !matched {
        return Err(Malformed);
    }
    let mut parts = Parts::default();
    let mut position = 0;
    while let Some(offset) = message.field(&mut position)? {
        let field = fields.clone().nth(offset).and_then(|index| types.field(index)).ok_or(Malformed)?;
        match field.name.filter(|name| known.contains(name)) {
            Some(name) => set(&mut parts, name, &mut message)?,
            None => types.skip(field.type_id, &mut message, 0)?,
        }
    }
    Ok(parts)
}

fn set<'a>(parts: &mut Parts<'a>, field: Field, message: &mut Reader<'a>) -> Result<(), Malformed> {
    if let Some(number) = parts.number(field) {
        *number = i32::try_from(message.int()?).map_err(|_| Malformed)?;
    } else if let Some(text) = parts.text(field) {
        *text = String::from_utf8_lossy(message.blob()?);
    } else {
        parts.data = Some(Cow::Borrowed(message.blob()?));
    }
    Ok(())
}

/// Primitives of gob. Nothing is read beyond the slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn uint(&mut self) -> Result<u64, Malformed> {
        let (&first, rest) = self.0.split_first().ok_or(Malformed)?;
        if first < 128 {
            self.0 = rest;
            return Ok(u64::from(first));
        }
        let count = usize::from(first.wrapping_neg());
        let (digits, rest) = rest.split_at_checked(count).ok_or(Malformed)?;
        if count > 8 {
            return Err(Malformed);
        }
        self.0 = rest;
        Ok(digits.iter().fold(0, |value, digit| value << 8 | u64::from(*digit)))
    }

    pub(super) fn int(&mut self) -> Result<i64, Malformed> {
        let value = self.uint()?;
        let magnitude = (value >> 1).cast_signed();
        Ok(if value & 1 == 0 { magnitude } else { !magnitude })
    }

    /// A number of things that take at least one byte each, so that it can be no more than the bytes left.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.uint()?).map_err(|_| Malformed)?;
        if count > self.0.len() { Err(Malformed) } else { Ok(count) }
    }

    /// A string or bytes with their length.
    pub(super) fn blob(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count()?;
        let (blob, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(blob)
    }

    /// The next field of a struct, counted from 0; `None` at its end mark. `position` starts at 0.
    pub(super) fn field(&mut self, position: &mut usize) -> Result<Option<usize>, Malformed> {
        let delta = usize::try_from(self.uint()?).map_err(|_| Malformed)?;
        if delta == 0 {
            return Ok(None);
        }
        *position = position.checked_add(delta).ok_or(Malformed)?;
        Ok(Some(*position - 1))
    }
}
