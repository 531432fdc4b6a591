use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use gpu::Machine;
use sources::Source;

use super::{Member, sources::Stock};
use crate::{Batch, Tokens, VitError};

/// Brings tokens of batches into a machine's memory by a way that does not wait for the steps, nor they for it.
#[derive(Debug)]
pub(crate) struct Courier {
    machine: Mutex<Box<dyn Machine>>,
}

/// Tokens of a batch that are there.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    stocks: BTreeMap<Source, Stock>,
    /// Whether they are those of the batch as it is.
    current: bool,
}

impl Courier {
    /// To the machine on which `member` takes its steps.
    pub(crate) fn to(member: &Member) -> Result<Self, VitError> {
        let machine = member.group().borrow().machine().beside()?;
        Ok(Self { machine: Mutex::new(machine) })
    }

    /// Brings all tokens that `batch` has; they are there when this returns.
    pub(crate) fn send(&self, batch: &mut Batch) -> Result<(), VitError> {
        // A panic elsewhere leaves a way that is as good as before.
        let machine = &**self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let Batch { images, tokens, sent, .. } = batch;
        let sent = &mut sent.tokens;
        sent.current = false;
        sent.stocks.retain(|source, stock| tokens.get(source).is_some_and(|tokens| stock.fits(tokens)));
        for (source, tokens) in tokens {
            let mut stock = match sent.stocks.remove(source) {
                Some(stock) => stock,
                None => Stock::new(machine, *images, tokens, *images)?,
            };
            stock.write(machine, 0, tokens, *images)?;
            sent.stocks.insert(*source, stock);
        }
        machine.finish()?;
        sent.current = true;
        Ok(())
    }
}

impl Sent {
    pub(crate) const fn expire(&mut self) {
        self.current = false;
    }

    /// Where `tokens`, those of `source` in the batch, are.
    pub(super) fn stock(&self, source: Source, tokens: &Tokens) -> Option<&Stock> {
        self.stocks.get(&source).filter(|stock| self.current && stock.fits(tokens))
    }
}
