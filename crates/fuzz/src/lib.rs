//! For tests only: feeds damaged and hostile bytes to everything of this project that parses files which others wrote.
//!
//! A [`Target`] is a parser with what is worth knowing about its format. [`run`] makes cases out of the target's corpus,
//! valid files of a few KB, and gives each to the parser, in this process, on all threads of rayon; [`replay`] does so with
//! the corpus itself, to which inputs belong that once failed. A case fails if the parser panics, takes over two seconds,
//! or asks for over 256 MiB of memory. Everything follows from a seed: [`input`] makes the input of a case again.
//!
//! Memory is only seen by a program that installs the allocator:
//!
//! ```
//! #[global_allocator]
//! static MEMORY: fuzz::Metered = fuzz::Metered;
//! ```
//!
//! What kills a process cannot be caught: a stack that overflows, an allocation that the system refuses. While a block of
//! cases runs, a file in the folder of failures holds the number of the case at work; after a kill it is still there.

mod case;
mod corpus;
mod memory;
mod mend;
mod mutate;
mod packed;
mod run;
mod targets;

pub use case::{LONGEST, MOST_BYTES};
pub use corpus::{Seed, corpus, corpus_folder};
pub use memory::Metered;
pub use run::{Failure, Outcome, input, replay, run};
pub use targets::{TARGETS, Target, target};
