//! How much memory a pickle takes to read, found out without taking it.
//!
//! candle copies an object whenever the pickle remembers it or asks for it again, and frees what is nested by recursion. So
//! a few hundred bytes can fill any memory, or run out of the stack: neither is a panic that could be caught. This walks
//! through the same operations with sizes and depths in place of objects.

use std::collections::HashMap;

/// Memory that all objects ever made may have taken. ResNet-18's state dict takes 2 MB.
const MOST_BYTES: u64 = 64 << 20;

/// How deep objects may be nested. A tensor in a checkpoint lies 6 deep.
const DEEPEST: u32 = 100;

/// What an object takes besides its text.
const OBJECT_BYTES: u64 = 96;

#[derive(Clone, Copy)]
struct Object {
    bytes: u64,
    depth: u32,
    is_mark: bool,
}

#[derive(Default)]
struct Machine {
    stack: Vec<Object>,
    memo: HashMap<u32, Object>,
    /// Of all objects ever made.
    made_bytes: u64,
}

/// Checks that `pickle` can be read. Where it is none, the reader will say so: that is no error here.
///
/// # Errors
/// If it takes too much memory or is nested too deep.
pub(crate) fn check(pickle: &[u8]) -> Result<(), String> {
    let mut machine = Machine::default();
    let mut rest = pickle;
    while let Some(object) = machine.step(&mut rest) {
        if machine.made_bytes > MOST_BYTES || object.depth > DEEPEST {
            return Err(format!(
                "reading it would take over {MOST_BYTES} bytes, or objects are nested over {DEEPEST} deep"
            ));
        }
    }
    Ok(())
}

impl Machine {
    /// The next operation, and what it leaves on top of the stack. None at the end, or at what no reader goes beyond.
    fn step(&mut self, rest: &mut &[u8]) -> Option<Object> {
        match take(rest, 1)?[0] {
            0x80 => drop(take(rest, 1)?),
            b'c' => {
                let text = line(rest)?.len() + line(rest)?.len();
                self.make(text);
            }
            b'N' | 0x88 | 0x89 | b')' | b']' | b'}' | b'd' => self.make(0),
            b'(' => {
                self.make(0);
                self.stack.last_mut()?.is_mark = true;
            }
            b'K' => self.make_of(rest, 1)?,
            b'M' => self.make_of(rest, 2)?,
            b'J' => self.make_of(rest, 4)?,
            b'G' => self.make_of(rest, 8)?,
            0x8a => {
                let bytes = take(rest, 1)?[0];
                self.make_of(rest, bytes.into())?;
            }
            b'X' => {
                let length = u32_of(rest)? as usize;
                // Before it looks whether the text is there, the reader makes room for it.
                self.make(length);
                take(rest, length);
            }
            0x85 | b'Q' => self.wrap(1)?,
            0x86 | b'R' | 0x81 | b'b' => self.wrap(2)?,
            0x87 => self.wrap(3)?,
            b't' => {
                let count = self.above_mark()?;
                self.wrap(count)?;
                self.drop_mark_below()?;
            }
            b'a' => self.put_into_last(1)?,
            b's' => self.put_into_last(2)?,
            b'e' | b'u' => {
                let count = self.above_mark()?;
                let parts = self.parts(count)?;
                self.stack.pop()?;
                self.merge(parts)?;
            }
            b'h' => {
                let key = take(rest, 1)?[0].into();
                self.fetch(key)?;
            }
            b'j' => {
                let key = u32_of(rest)?;
                self.fetch(key)?;
            }
            b'q' => {
                let key = take(rest, 1)?[0].into();
                self.remember(key)?;
            }
            b'r' => {
                let key = u32_of(rest)?;
                self.remember(key)?;
            }
            _ => return None,
        }
        Some(self.stack.last().copied().unwrap_or(Object { bytes: 0, depth: 0, is_mark: false }))
    }

    fn push(&mut self, object: Object, new_bytes: u64) {
        self.made_bytes = self.made_bytes.saturating_add(new_bytes);
        self.stack.push(object);
    }

    /// A new object with as many bytes of text.
    fn make(&mut self, text_bytes: usize) {
        let bytes = OBJECT_BYTES + text_bytes as u64;
        self.push(Object { bytes, depth: 1, is_mark: false }, bytes);
    }

    /// A new object out of the next bytes.
    fn make_of(&mut self, rest: &mut &[u8], bytes: usize) -> Option<()> {
        take(rest, bytes)?;
        self.make(0);
        Some(())
    }

    /// Takes the topmost objects off the stack: their bytes together, and the deepest one's depth.
    fn parts(&mut self, count: usize) -> Option<(u64, u32)> {
        let parts = self.stack.split_off(self.stack.len().checked_sub(count)?);
        Some(parts.iter().fold((0, 0), |(bytes, depth), part| (bytes + part.bytes, depth.max(part.depth))))
    }

    /// A new object around the topmost ones.
    fn wrap(&mut self, count: usize) -> Option<()> {
        let (bytes, depth) = self.parts(count)?;
        self.push(Object { bytes: bytes + OBJECT_BYTES, depth: depth + 1, is_mark: false }, OBJECT_BYTES);
        Some(())
    }

    fn put_into_last(&mut self, count: usize) -> Option<()> {
        let parts = self.parts(count)?;
        self.merge(parts)
    }

    fn merge(&mut self, (bytes, depth): (u64, u32)) -> Option<()> {
        let into = self.stack.last_mut()?;
        into.bytes += bytes;
        into.depth = into.depth.max(depth + 1);
        Some(())
    }

    /// How many objects lie above the topmost mark.
    fn above_mark(&self) -> Option<usize> {
        self.stack.iter().rev().position(|object| object.is_mark)
    }

    /// Takes the mark below the topmost object away.
    fn drop_mark_below(&mut self) -> Option<()> {
        let top = self.stack.pop()?;
        self.stack.pop()?;
        self.stack.push(top);
        Some(())
    }

    fn fetch(&mut self, key: u32) -> Option<()> {
        let object = *self.memo.get(&key)?;
        self.push(object, object.bytes);
        Some(())
    }

    fn remember(&mut self, key: u32) -> Option<()> {
        let object = *self.stack.last()?;
        self.made_bytes = self.made_bytes.saturating_add(object.bytes);
        self.memo.insert(key, object);
        Some(())
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    rest.split_off(..count)
}

fn u32_of(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    take(rest, end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_objects_pass_and_so_does_what_is_no_pickle() {
        check(b"\x80\x02}q\x00(X\x01\x00\x00\x00ac\nf\no\n(K\x01M\x02\x00J\x03\x00\x00\x00tRu.").unwrap();
        for none in [b"".as_slice(), b"t", b"u", b"\x85", b"h\x07", b"X\x05\x00\x00", b"\xff", b"c\nno end"] {
            check(none).unwrap();
        }
    }

    #[test]
    fn a_list_that_doubles_is_refused() {
        // l = [0]; l = [l, l] forty times over: half a kilobyte for a list of 2^40 numbers.
        let doubled = b"q\x00](h\x00h\x00e".repeat(40);
        check(&[b"]K\x00a".as_slice(), &doubled, b"."].concat()).unwrap_err();
    }

    #[test]
    fn nesting_beyond_all_sense_and_texts_beyond_the_file_are_refused() {
        check(&[b")".as_slice(), &b"\x85".repeat(50)].concat()).unwrap();
        check(&[b")".as_slice(), &b"\x85".repeat(100_000)].concat()).unwrap_err();
        check(b"X\xff\xff\xff\xff").unwrap_err();
    }
}
