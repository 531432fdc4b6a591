//! FERPlus as folders of images beside tables of votes.

use std::path::Path;

use rayon::prelude::*;

use crate::{
    annotation::{Annotation, Votes},
    audit::{Audit, Disagreements},
    classes::ClassSet,
    error::DatasetError,
    fault::{BadInput, BadInputs, Fault},
    files::{FoundImage, has_image_ending, list_images},
    label_table::{FER2013NEW, LabelTable},
    layout::{LabelSource, Layout},
    named_rows::Walk,
    rule::LabelRule,
    split::Split,
    target::target,
};

const FOLDER_LABELS: &str = "label.csv";

const fn folder_of(split: Split) -> &'static str {
    match split {
        Split::Train => "FER2013Train",
        Split::Valid => "FER2013Valid",
        Split::Test => "FER2013Test",
    }
}

/// Whether `dir` has FERPlus's training folder with images in it.
pub(crate) fn is_at(dir: &Path) -> bool {
    std::fs::read_dir(dir.join(folder_of(Split::Train)))
        .is_ok_and(|entries| entries.flatten().any(|entry| has_image_ending(&entry.path())))
}

/// Lists the images of `dir` with the votes that `source` has for them.
pub(crate) fn read(
    dir: &Path,
    source: LabelSource,
    bad: &mut BadInputs,
    audit: &mut Audit,
) -> Result<Vec<FoundImage>, DatasetError> {
    // The folders and the tables of a million images take a core each.
    let (found, tables) = rayon::join(
        || list_folders(dir, bad),
        || {
            let (common, per_folder) = read_tables(dir, source)?;
            let audits = common.iter().chain(&per_folder).map(LabelTable::audit).collect();
            Ok::<_, DatasetError>((common, per_folder, audits))
        },
    );
    let (mut found, (common, per_folder, audits)) = (found?, tables?);
    audit.label_tables = audits;
    let (chosen, others) = match source {
        LabelSource::Fer2013new => (&common, &per_folder),
        LabelSource::Folders => (&per_folder, &common),
    };

    found.par_iter_mut().for_each_init(
        || walks(chosen),
        |rows, image| image.annotation = votes(rows, image).map_or(Annotation::None, Annotation::Votes),
    );
    let disagreements = disagreements(&found, others);
    audit.label_disagreements = (disagreements.compared > 0).then_some(disagreements);
    // Where every named row has met its image, none is left to complain about.
    let met = found.par_iter().filter(|image| image.annotation != Annotation::None).count();
    if met < chosen.iter().map(LabelTable::names).sum() {
        chosen.iter().try_for_each(|table| report_rows_without_image(table, &found, bad))?;
    }
    Ok(found)
}

/// How the votes for the images `found` differ from those of `others`.
fn disagreements(found: &[FoundImage], others: &[LabelTable]) -> Disagreements {
    if others.is_empty() {
        return Disagreements::default();
    }
    let compare = |theirs: &mut Vec<Walk<'_>>, image: &FoundImage| match (image.annotation, votes(theirs, image)) {
        (Annotation::Votes(ours), Some(theirs)) => Disagreements {
            compared: 1,
            different: usize::from(ours != theirs),
            majority_changed: usize::from(majority(ours) != majority(theirs)),
        },
        _ => Disagreements::default(),
    };
    found.par_iter().map_init(|| walks(others), compare).reduce(Disagreements::default, Disagreements::and)
}

/// The images for each split in the order of their names, without what is known about them.
fn list_folders(dir: &Path, bad: &mut BadInputs) -> Result<Vec<FoundImage>, DatasetError> {
    let mut found = Vec::new();
    for split in Split::ALL {
        let folder = dir.join(folder_of(*split));
        if !folder.is_dir() {
            return Err(missing(&folder, "unpack the data set completely"));
        }
        let ids = list_images(&folder, &format!("{}/", folder_of(*split)), &[FOLDER_LABELS], bad)?;
        found.extend(ids.into_iter().map(|id| FoundImage { id, split: *split, annotation: Annotation::None }));
    }
    Ok(found)
}

/// Reads the tables that are there: the common one, and those in the folders. Only those of `source` must be.
fn read_tables(dir: &Path, source: LabelSource) -> Result<(Vec<LabelTable>, Vec<LabelTable>), DatasetError> {
    let mut common = Vec::new();
    let path = dir.join(FER2013NEW);
    if path.is_file() {
        common.push(LabelTable::read_fer2013new(&path)?);
    } else if source == LabelSource::Fer2013new {
        let advice = "get it from https://github.com/microsoft/FERPlus, or set `data.label_source = \"folder\"` to use \
                      the `label.csv` in each folder";
        return Err(missing(&path, advice));
    }
    let mut per_folder = Vec::new();
    for split in Split::ALL {
        let path = dir.join(folder_of(*split)).join(FOLDER_LABELS);
        if path.is_file() {
            per_folder.push(LabelTable::read_folder_labels(&path, *split)?);
        } else if source == LabelSource::Folders {
            return Err(missing(&path, "set `data.label_source = \"fer2013new\"` to use the common table"));
        }
    }
    Ok((common, per_folder))
}

fn missing(path: &Path, advice: &'static str) -> DatasetError {
    DatasetError::Missing { path: path.to_owned(), layout: Layout::Ferplus, advice }
}

fn walks(tables: &[LabelTable]) -> Vec<Walk<'_>> {
    tables.iter().map(LabelTable::walk).collect()
}

/// The votes for an image, of the first table that names it.
fn votes(tables: &mut [Walk<'_>], image: &FoundImage) -> Option<Votes> {
    tables.iter_mut().find_map(|rows| rows.votes(image.split, name_of(image)))
}

/// The name of an image in its folder.
fn name_of(image: &FoundImage) -> &str {
    &image.id[folder_of(image.split).len() + 1..]
}

/// The class that a majority of the annotators saw, of all eight.
fn majority(votes: Votes) -> Option<usize> {
    let target = target(&Annotation::Votes(votes), LabelRule::Majority, ClassSet::Eight, Split::Train);
    target.map(|target| target.class())
}

fn report_rows_without_image(
    table: &LabelTable,
    found: &[FoundImage],
    bad: &mut BadInputs,
) -> Result<(), DatasetError> {
    let lies_in = |split: Split, name: &str| {
        found.binary_search_by(|image| (image.split, name_of(image)).cmp(&(split, name))).is_ok()
    };
    for row in table.rows.iter().filter(|row| !row.name.is_empty() && !lies_in(row.split, &row.name)) {
        let name = row.name.to_string();
        let fault = match Split::ALL.iter().find(|split| lies_in(**split, &row.name)) {
            Some(got) => Fault::OtherSplit { name, expected: row.split, got: *got },
            None => Fault::MissingImage { name, folder: folder_of(row.split).to_owned() },
        };
        bad.take(BadInput::row(&table.path, row.line, fault))?;
    }
    Ok(())
}
