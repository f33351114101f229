//! Reading and writing the compact binary of records and messages: variable-length numbers, short strings, words. A reader never panics
//! and never allocates more than its input is long.

use crate::message::SetWord;
use crate::set::{Member, VOTERS_MAX, VoterSet};
use crate::types::{BootId, Epoch, Instance, Node, NodeName, SetNo, SlotName, Tenure, VoterId};

/// Bytes that do not say what they should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BytesError {
    /// They end too soon.
    #[error("cut off at byte {0}")]
    Short(usize),
    /// They go on after the end.
    #[error("{0} bytes too many")]
    Long(usize),
    /// A field with an impossible value.
    #[error("bad {0}")]
    Bad(&'static str),
}

/// Appends fields to a buffer.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// The bytes written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Seven bits a byte, lowest first.
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push((number & 0x7f) as u8);
    }

    /// A count or an index.
    pub fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    /// Sixteen bytes.
    pub fn wide(&mut self, number: u128) {
        self.raw(&number.to_le_bytes());
    }

    /// Length, then the text.
    pub fn text(&mut self, text: &str) {
        self.count(text.len());
        self.raw(text.as_bytes());
    }

    /// A byte that says whether the value follows.
    pub fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A node.
    pub fn node(&mut self, node: &Node) {
        self.wide(node.boot.0);
        self.text(node.name.as_str());
    }

    /// A tenure.
    pub fn tenure(&mut self, tenure: &Tenure) {
        self.number(tenure.epoch.0);
        self.node(&tenure.node);
        self.number(tenure.instance.0);
    }

    /// A voter set.
    pub fn set(&mut self, set: &VoterSet) {
        self.number(set.number().0);
        self.count(set.members().len());
        for member in set.members() {
            self.wide(member.id.0);
            self.text(member.node.as_str());
        }
    }

    /// The round of a word, at the end of what holds it; nothing for the first one, as before there were rounds.
    pub fn round_of(&mut self, word: Option<&SetWord>) {
        if let Some(word) = word.filter(|word| word.round > 0) {
            self.number(u64::from(word.round));
        }
    }
}

/// Takes fields off the front of a buffer.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Fails if anything is left.
    ///
    /// # Errors
    /// [`BytesError::Long`].
    pub const fn end(&self) -> Result<(), BytesError> {
        match self.left() {
            0 => Ok(()),
            left => Err(BytesError::Long(left)),
        }
    }

    /// So many bytes as they are.
    ///
    /// # Errors
    /// [`BytesError::Short`].
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], BytesError> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.get(..len)).ok_or(BytesError::Short(self.at))?;
        self.at += len;
        Ok(bytes)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`BytesError::Short`].
    pub fn byte(&mut self) -> Result<u8, BytesError> {
        Ok(self.raw(1)?[0])
    }

    /// A number as [`Writer::number`] wrote it, in its shortest form only.
    ///
    /// # Errors
    /// [`BytesError`] if cut off, above 64 bits, or longer than need be.
    pub fn number(&mut self) -> Result<u64, BytesError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(BytesError::Bad("number"))
    }

    /// A count of things that take at least `each` bytes, so at most as many as the bytes left can hold.
    ///
    /// # Errors
    /// [`BytesError`].
    pub fn count(&mut self, each: usize) -> Result<usize, BytesError> {
        let count = usize::try_from(self.number()?).map_err(|_| BytesError::Bad("count"))?;
        if count > self.left() / each.max(1) { Err(BytesError::Short(self.at)) } else { Ok(count) }
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// [`BytesError::Short`].
    pub fn wide(&mut self) -> Result<u128, BytesError> {
        let bytes = self.raw(16)?.try_into().map_err(|_| BytesError::Short(self.at))?;
        Ok(u128::from_le_bytes(bytes))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`BytesError::Short`].
    pub fn fixed(&mut self) -> Result<u64, BytesError> {
        let bytes = self.raw(8)?.try_into().map_err(|_| BytesError::Short(self.at))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn text(&mut self) -> Result<&'a str, BytesError> {
        let len = self.count(1)?;
        std::str::from_utf8(self.raw(len)?).map_err(|_| BytesError::Bad("text"))
    }

    /// A node's name.
    ///
    /// # Errors
    /// [`BytesError`].
    pub fn node_name(&mut self) -> Result<NodeName, BytesError> {
        NodeName::new(self.text()?).map_err(|_| BytesError::Bad("node name"))
    }

    /// A slot's or ring's name.
    ///
    /// # Errors
    /// [`BytesError`].
    pub fn slot_name(&mut self) -> Result<SlotName, BytesError> {
        SlotName::new(self.text()?).map_err(|_| BytesError::Bad("slot name"))
    }

    /// A byte that is 0 or 1.
    ///
    /// # Errors
    /// [`BytesError`].
    pub fn flag(&mut self) -> Result<bool, BytesError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(BytesError::Bad("flag")),
        }
    }

    /// What [`Writer::maybe`] wrote.
    ///
    /// # Errors
    /// [`BytesError`].
    pub fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, BytesError>) -> Result<Option<T>, BytesError> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// An epoch.
    ///
    /// # Errors
    /// [`BytesError`].
    pub fn epoch(&mut self) -> Result<Epoch, BytesError> {
        self.number().map(Epoch)
    }

    /// A node.
    ///
    /// # Errors
    /// [`BytesError`].
    pub fn node(&mut self) -> Result<Node, BytesError> {
        Ok(Node { boot: BootId(self.wide()?), name: self.node_name()? })
    }

    /// A tenure.
    ///
    /// # Errors
    /// [`BytesError`].
    pub fn tenure(&mut self) -> Result<Tenure, BytesError> {
        Ok(Tenure { epoch: self.epoch()?, node: self.node()?, instance: Instance(self.number()?) })
    }

    /// The round of this word, if the buffer has not ended.
    ///
    /// # Errors
    /// [`BytesError`].
    pub fn round_into(&mut self, word: Option<&mut SetWord>) -> Result<(), BytesError> {
        let Some(word) = word.filter(|_| self.left() > 0) else { return Ok(()) };
        let round = u32::try_from(self.number()?).ok().filter(|round| *round > 0);
        word.round = round.ok_or(BytesError::Bad("round"))?;
        Ok(())
    }

    /// A voter set.
    ///
    /// # Errors
    /// [`BytesError`].
    pub fn set(&mut self) -> Result<VoterSet, BytesError> {
        let number = SetNo(self.number()?);
        let count = self.count(18)?;
        if count > VOTERS_MAX {
            return Err(BytesError::Bad("voter set"));
        }
        let members: Result<Vec<_>, BytesError> =
            (0..count).map(|_| Ok(Member { id: VoterId(self.wide()?), node: self.node_name()? })).collect();
        let members = members?;
        let sorted = members.is_sorted();
        VoterSet::new(number, members).ok().filter(|_| sorted).ok_or(BytesError::Bad("voter set"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(number: u64) {
            let mut writer = Writer::default();
            writer.number(number);
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.number(), Ok(number));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn a_number_has_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(number) = reader.number() {
                let mut writer = Writer::default();
                writer.number(number);
                prop_assert_eq!(&writer.into_bytes()[..], &bytes[..bytes.len() - reader.left()]);
            }
        }
    }

    #[test]
    fn counts_are_bounded_by_the_input() {
        assert_eq!(Reader::new(&[200, 1, 0]).count(1), Err(BytesError::Short(2)));
    }
}
