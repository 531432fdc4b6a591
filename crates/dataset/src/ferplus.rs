//! FERPlus as folders of images beside tables of votes.

use std::{collections::HashMap, path::Path};

use crate::{
    annotation::{Annotation, Votes},
    audit::{Audit, Disagreements},
    classes::ClassSet,
    error::DatasetError,
    fault::{BadInput, BadInputs, Fault},
    files::{FoundImage, has_image_ending, list_images},
    label_table::{FER2013NEW, LabelTable},
    layout::{LabelSource, Layout},
    named_rows::{NamedRows, Walk},
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
    // The tables and the folders of a million images take a core each.
    let (names, tables) = rayon::join(|| list_folders(dir, bad), || read_tables(dir, source));
    let (names, (common, per_folder)) = (names?, tables?);
    let chosen = match source {
        LabelSource::Fer2013new => &common,
        LabelSource::Folders => &per_folder,
    };
    let (common_rows, folder_rows) = (named_rows(&common), named_rows(&per_folder));
    let tables = common.iter().chain(&per_folder).zip(common_rows.iter().chain(&folder_rows));
    audit.label_tables = tables.map(|(table, rows)| table.audit(rows)).collect();
    let (chosen_rows, other_rows) = match source {
        LabelSource::Fer2013new => (&common_rows, &folder_rows),
        LabelSource::Folders => (&folder_rows, &common_rows),
    };
    let mut ours: Vec<Walk<'_, '_>> = chosen_rows.iter().map(NamedRows::walk).collect();
    let mut theirs: Vec<Walk<'_, '_>> = other_rows.iter().map(NamedRows::walk).collect();

    let mut named = 0;
    let mut found = Vec::with_capacity(names.values().map(Vec::len).sum());
    let mut disagreements = Disagreements::default();
    for (split, name) in Split::ALL.iter().flat_map(|split| names[split].iter().map(move |name| (*split, name))) {
        let annotated = votes(&mut ours, split, name);
        named += usize::from(annotated.is_some());
        if let Some((ours, theirs)) = annotated.zip(votes(&mut theirs, split, name)) {
            disagreements.compared += 1;
            disagreements.different += usize::from(ours != theirs);
            disagreements.majority_changed += usize::from(majority(ours) != majority(theirs));
        }
        let annotation = annotated.map_or(Annotation::None, Annotation::Votes);
        found.push(FoundImage { id: format!("{}/{name}", folder_of(split)), split, annotation });
    }
    // Where every named row has met its image, none is left to complain about.
    if named < chosen_rows.iter().map(NamedRows::names).sum() {
        chosen.iter().try_for_each(|table| report_rows_without_image(table, &names, bad))?;
    }
    audit.label_disagreements = (disagreements.compared > 0).then_some(disagreements);
    Ok(found)
}

/// The names of the images for each split.
fn list_folders(dir: &Path, bad: &mut BadInputs) -> Result<HashMap<Split, Vec<String>>, DatasetError> {
    let mut names = HashMap::new();
    for split in Split::ALL {
        let folder = dir.join(folder_of(*split));
        if !folder.is_dir() {
            return Err(missing(&folder, "unpack the data set completely"));
        }
        names.insert(*split, list_images(&folder, &[FOLDER_LABELS], bad)?);
    }
    Ok(names)
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

fn named_rows(tables: &[LabelTable]) -> Vec<NamedRows<'_>> {
    tables.iter().map(NamedRows::of).collect()
}

/// The votes for an image, of the first table that names it.
fn votes(tables: &mut [Walk<'_, '_>], split: Split, name: &str) -> Option<Votes> {
    tables.iter_mut().find_map(|rows| rows.votes(split, name))
}

/// The class that a majority of the annotators saw, of all eight.
fn majority(votes: Votes) -> Option<usize> {
    let target = target(&Annotation::Votes(votes), LabelRule::Majority, ClassSet::Eight, Split::Train);
    target.map(|target| target.class())
}

fn report_rows_without_image(
    table: &LabelTable,
    names: &HashMap<Split, Vec<String>>,
    bad: &mut BadInputs,
) -> Result<(), DatasetError> {
    let lies_in = |split: Split, name: &String| names[&split].binary_search(name).is_ok();
    for row in table.rows.iter().filter(|row| !row.name.is_empty() && !lies_in(row.split, &row.name)) {
        let name = row.name.clone();
        let fault = match Split::ALL.iter().find(|split| lies_in(**split, &row.name)) {
            Some(got) => Fault::OtherSplit { name, expected: row.split, got: *got },
            None => Fault::MissingImage { name, folder: folder_of(row.split).to_owned() },
        };
        bad.take(BadInput::row(&table.path, row.line, fault))?;
    }
    Ok(())
}
