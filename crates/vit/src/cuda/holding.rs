use std::{cell::RefCell, rc::Rc};

use gpu::GpuError;
use sources::Source;

use super::{Member, group::Group, sources::Stock};
use crate::{Batch, VitError};

/// Tokens of one source on their way into the memory of the machine on which members of some groups take their steps.
#[derive(Debug)]
pub(crate) struct Holding {
    /// Any of them.
    group: Rc<RefCell<Group>>,
    source: Source,
    stock: Stock,
    taken: usize,
}

impl Holding {
    /// For those of `images` images, which are like those of the batch `like`; none if there is no memory for so many.
    pub(crate) fn begin(
        member: &Member,
        source: Source,
        images: usize,
        like: &Batch,
    ) -> Result<Option<Self>, VitError> {
        let tokens = like.tokens.get(&source).ok_or(VitError::NoTokens { missing: source })?;
        let stock = match Stock::new(member.group().borrow().machine(), images, tokens, like.images) {
            Err(GpuError::Memory { .. }) => return Ok(None),
            stock => stock?,
        };
        Ok(Some(Self { group: Rc::clone(member.group()), source, stock, taken: 0 }))
    }

    /// Takes the tokens of the next images, those of `batch`.
    ///
    /// # Panics
    /// If they are more than it began with.
    pub(crate) fn add(&mut self, batch: &Batch) -> Result<(), VitError> {
        let tokens = batch.tokens.get(&self.source).ok_or(VitError::NoTokens { missing: self.source })?;
        self.stock.write(self.group.borrow().machine(), self.taken, tokens, batch.images)?;
        self.taken += batch.images;
        Ok(())
    }

    /// Has all `members` read from it from now on.
    ///
    /// # Errors
    /// If not all images have been taken.
    pub(crate) fn finish<'a>(self, members: impl Iterator<Item = &'a Member>) -> Result<(), VitError> {
        let Self { group, source, stock, taken } = self;
        if taken != stock.images() {
            let what = format!("what is held of {source}");
            return Err(VitError::Shape { what, expected: vec![stock.images()], got: vec![taken] });
        }
        // The members' groups have streams of their own.
        group.borrow().machine().finish()?;
        let stock = Rc::new(stock);
        members.for_each(|member| member.group().borrow_mut().hold(source, &stock));
        Ok(())
    }
}
