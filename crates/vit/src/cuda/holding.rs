use std::{cell::RefCell, rc::Rc};

use gpu::GpuError;
use sources::Source;

use super::{Answers, Member, group::Group, sources::Stock};
use crate::{Batch, VitError};

/// Tokens of one source on their way into the memory of the machine on which members of a group take their steps.
#[derive(Debug)]
pub(crate) struct Holding {
    /// Any of them.
    group: Rc<RefCell<Group>>,
    source: Source,
    stock: Stock,
    taken: usize,
}

/// Tokens of one source of some images, which stay there for as long as anybody reads them.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    source: Source,
    stock: Rc<Stock>,
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

    /// What is held now.
    ///
    /// # Errors
    /// If not all images have been taken.
    pub(crate) fn finish(self) -> Result<Held, VitError> {
        let Self { group, source, stock, taken } = self;
        if taken != stock.images() {
            let what = format!("what is held of {source}");
            return Err(VitError::Shape { what, expected: vec![stock.images()], got: vec![taken] });
        }
        // Those who read it have streams of their own.
        group.borrow().machine().finish()?;
        Ok(Held { source, stock: Rc::new(stock) })
    }
}

impl Held {
    /// Has `member`, and those of its group, read from it from now on.
    pub(crate) fn lend_to(&self, member: &Member) {
        member.group().borrow_mut().hold(self.source, &self.stock);
    }

    /// The same for who answers.
    pub(crate) fn lend_to_answers(&self, answers: &mut Answers) {
        answers.hold(self.source, &self.stock);
    }
}
