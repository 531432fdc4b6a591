//! Images whose structure is whole and whose content cannot be decoded.
//!
//! Opening a data set looks at an image's structure only; that it cannot be decoded shows in the backbone pass.
//! What was found there is kept by content in `undecodable.json`, so that every later command knows it at once.

use std::{collections::BTreeMap, io, path::Path};

use serde::{Deserialize, Serialize};
use stage::{ContentHash, read_sound_json, write_sealed_json};

use crate::fault::Fault;

const FILE: &str = "undecodable.json";

/// What cannot be decoded, by content. Another version of the program may decode more: its list begins empty.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Undecodable {
    program: String,
    images: BTreeMap<ContentHash, Fault>,
}

impl Undecodable {
    /// The list kept in `index_dir`. A damaged or missing one is empty, which costs finding its images again.
    pub(crate) fn read(index_dir: &Path) -> Self {
        let stored: Option<Self> = read_sound_json(&index_dir.join(FILE), "its images are found again");
        let program = env!("CARGO_PKG_VERSION");
        stored
            .filter(|stored| stored.program == program)
            .unwrap_or_else(|| Self { program: program.to_owned(), images: BTreeMap::new() })
    }

    /// Why the image with this content cannot be decoded, if that is known.
    pub(crate) fn fault(&self, hash: &ContentHash) -> Option<&Fault> {
        self.images.get(hash)
    }

    /// Adds an image and keeps the list.
    pub(crate) fn add(index_dir: &Path, hash: ContentHash, fault: Fault) -> io::Result<()> {
        let mut list = Self::read(index_dir);
        list.images.insert(hash, fault);
        write_sealed_json(&index_dir.join(FILE), &list)
    }
}
