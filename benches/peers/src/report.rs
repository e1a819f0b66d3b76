//! The figures, on the screen and in a file.

use std::{fs::File, io, path::Path};

use serde::Serialize;

use crate::{
    contender::Contender,
    measure::{Figure, Row},
    population::Memory,
};

/// Columns of figures.
const WIDTH: usize = 15;
/// The column of workloads.
const FIRST: usize = 46;

pub struct Table {
    columns: Vec<&'static str>,
}

impl Table {
    /// Prints the head.
    pub fn begin(contenders: &[Box<dyn Contender>]) -> Self {
        let columns: Vec<_> = contenders.iter().map(|it| it.name()).collect();
        println!("Nanoseconds an operation, and below them how many times corosensei's that is.\n");
        // Long names go onto two lines.
        let (upper, lower): (Vec<_>, Vec<_>) = columns
            .iter()
            .map(|name| match name.split_once(' ') {
                Some(words) => words,
                None => ("", *name),
            })
            .unzip();
        line("", upper.into_iter().map(String::from));
        line("", lower.into_iter().map(String::from));
        Self { columns }
    }

    pub fn add(&self, row: &Row) {
        let cells = |cell: &dyn Fn(&Figure) -> String| {
            let cells: Vec<_> = self
                .columns
                .iter()
                .map(|column| {
                    let figure = row.figures.iter().find(|it| it.contender == *column);
                    figure.map(cell).unwrap_or_default()
                })
                .collect();
            cells.into_iter()
        };
        line(&row.workload, cells(&|figure| rounded(figure.ns)));
        line(
            "",
            cells(&|figure| figure.ratio.map(times).unwrap_or_default()),
        );
        if row.figures.iter().any(|figure| figure.memory.is_some()) {
            let bytes = |of: &dyn Fn(&Memory) -> u64| {
                cells(&|figure| {
                    figure
                        .memory
                        .as_ref()
                        .map(of)
                        .unwrap_or_default()
                        .to_string()
                })
            };
            line("  bytes resident, each", bytes(&|memory| memory.resident));
            line(
                "  bytes of page tables, each",
                bytes(&|memory| memory.page_tables),
            );
        }
        for (contender, reason) in &row.skipped {
            println!("  without {contender}: {reason}");
        }
    }
}

fn line(first: &str, cells: impl Iterator<Item = String>) {
    let mut line = format!("{first:FIRST$}");
    for cell in cells {
        line.push_str(&format!("{cell:>WIDTH$}"));
    }
    println!("{}", line.trim_end());
}

/// To three digits, or all that there are.
fn rounded(ns: f64) -> String {
    match ns {
        ..10.0 => format!("{ns:.2}"),
        ..100.0 => format!("{ns:.1}"),
        _ => format!("{ns:.0}"),
    }
}

fn times(ratio: f64) -> String {
    format!("{}×", rounded(ratio))
}

#[derive(Serialize)]
struct Entry<'a> {
    workload: &'a str,
    contender: &'a str,
    ns: f64,
    ratio: Option<f64>,
    #[serde(flatten)]
    memory: Option<Memory>,
}

pub fn write_json(path: &Path, rows: &[Row]) -> io::Result<()> {
    let entries: Vec<_> = rows
        .iter()
        .flat_map(|row| row.figures.iter().map(move |figure| (row, figure)))
        .map(|(row, figure)| Entry {
            workload: &row.workload,
            contender: figure.contender,
            ns: figure.ns,
            ratio: figure.ratio,
            memory: figure.memory,
        })
        .collect();
    serde_json::to_writer_pretty(File::create(path)?, &entries)?;
    Ok(())
}
