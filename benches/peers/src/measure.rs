//! Repetitions in random order, and the middle of what they give.

use std::time::Duration;

use crate::{
    contender::{Contender, Skip},
    contenders::REFERENCES,
    population::{self, Memory},
    workload::{Crowd, Workload},
};

/// What one contender comes to in one workload.
pub struct Figure {
    pub contender: &'static str,
    /// Nanoseconds an operation, the median.
    pub ns: f64,
    /// To the reference in the same repetition, the median; if there is a reference.
    pub ratio: Option<f64>,
    /// Bytes for each of a population, the median.
    pub memory: Option<Memory>,
}

/// A workload's figures, in the order of the contenders, and who has none for what reason.
pub struct Row {
    pub workload: String,
    pub figures: Vec<Figure>,
    pub skipped: Vec<(&'static str, String)>,
}

/// One measurement.
struct Sample {
    ns: f64,
    memory: Option<Memory>,
}

/// How long one contender is measured in one repetition.
pub struct Effort(pub Duration);

impl Effort {
    pub fn measure(&self, workload: &Workload, contenders: &[Box<dyn Contender>]) -> Row {
        let mut row = Row::of(&workload.name);
        let contenders = row.able(contenders, |contender| {
            Ok((contender, self.calibrate(workload, contender)?))
        });
        let samples = repeat(workload.repetitions, contenders.len(), |index| {
            let (contender, ops) = contenders[index];
            let elapsed = (workload.run)(contender, ops).unwrap_or_else(|skip| {
                panic!("{}, {}: {skip:?}", workload.name, contender.name());
            });
            Sample {
                ns: per(elapsed, ops * workload.together),
                memory: None,
            }
        });
        let names = contenders.iter().map(|(contender, _)| contender.name());
        row.fill(names.collect(), &samples);
        row
    }

    /// As many operations as fill the time.
    fn calibrate(&self, workload: &Workload, contender: &dyn Contender) -> Result<u64, Skip> {
        // What comes at the first time only, such as pages, is not the measure of others.
        (workload.run)(contender, 1)?;
        let mut ops = 1;
        loop {
            let elapsed = (workload.run)(contender, ops)?;
            if elapsed * 8 >= self.0 {
                let fitting = self.0.as_nanos() as f64 / per(elapsed, ops);
                return Ok((fitting as u64).max(1));
            }
            ops *= 8;
        }
    }
}

pub fn crowd(crowd: &Crowd, contenders: &[Box<dyn Contender>]) -> Row {
    let mut row = Row::of(&crowd.name);
    let sample = |contender: &dyn Contender| -> Result<Sample, Skip> {
        let population = population::of(contender, crowd.count)?;
        let count = crowd.count as u64;
        Ok(Sample {
            ns: per(population.elapsed, count),
            memory: Some(Memory {
                resident: population.memory.resident / count,
                page_tables: population.memory.page_tables / count,
            }),
        })
    };
    // The first of the repetitions shows who can.
    let first = in_random_order(contenders.len(), |index| sample(contenders[index].as_ref()));
    let mut outcomes = first.into_iter();
    let mut first = Vec::new();
    let able = row.able(contenders, |contender| {
        first.push(outcomes.next().expect("one for each")?);
        Ok(contender)
    });
    let mut samples = repeat(crowd.repetitions - 1, able.len(), |index| {
        sample(able[index])
            .unwrap_or_else(|skip| panic!("{}, {}: {skip:?}", crowd.name, able[index].name()))
    });
    samples.push(first);
    row.fill(able.iter().map(|able| able.name()).collect(), &samples);
    row
}

/// In each repetition everyone's sample, by index.
fn repeat(
    repetitions: usize,
    contenders: usize,
    mut sample: impl FnMut(usize) -> Sample,
) -> Vec<Vec<Sample>> {
    (0..repetitions)
        .map(|_| in_random_order(contenders, &mut sample))
        .collect()
}

/// `f` of each number below `count`, called in random order, returned in their own.
fn in_random_order<T>(count: usize, mut f: impl FnMut(usize) -> T) -> Vec<T> {
    let mut order = (0..count).collect::<Vec<_>>();
    fastrand::shuffle(&mut order);
    let mut results = order
        .into_iter()
        .map(|index| (index, f(index)))
        .collect::<Vec<_>>();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

impl Row {
    fn of(workload: &str) -> Self {
        Self {
            workload: workload.into(),
            figures: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Those who can, as `test` returns them.
    fn able<'a, T>(
        &mut self,
        contenders: &'a [Box<dyn Contender>],
        mut test: impl FnMut(&'a dyn Contender) -> Result<T, Skip>,
    ) -> Vec<T> {
        let mut able = Vec::new();
        for contender in contenders {
            match test(contender.as_ref()) {
                Ok(tested) => able.push(tested),
                Err(Skip::NotOffered) => {}
                Err(Skip::Because(reason)) => self.skipped.push((contender.name(), reason)),
            }
        }
        able
    }

    fn fill(&mut self, names: Vec<&'static str>, samples: &[Vec<Sample>]) {
        let reference = REFERENCES
            .iter()
            .find_map(|reference| names.iter().position(|name| name == reference));
        let middle = |value: &dyn Fn(&Vec<Sample>) -> f64| median(samples.iter().map(value));
        self.figures = names
            .into_iter()
            .enumerate()
            .map(|(index, contender)| {
                let bytes = |of: fn(&Memory) -> u64| {
                    middle(&|all| all[index].memory.as_ref().map_or(0.0, |it| of(it) as f64)) as u64
                };
                Figure {
                    contender,
                    ns: middle(&|all| all[index].ns),
                    ratio: reference
                        .map(|reference| middle(&|all| all[index].ns / all[reference].ns)),
                    memory: samples[0][index].memory.map(|_| Memory {
                        resident: bytes(|memory| memory.resident),
                        page_tables: bytes(|memory| memory.page_tables),
                    }),
                }
            })
            .collect();
    }
}

fn per(elapsed: Duration, ops: u64) -> f64 {
    elapsed.as_nanos() as f64 / ops as f64
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values = values.collect::<Vec<_>>();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}
