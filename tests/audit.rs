//! What `asm/README.md` tells an auditor, the heads of the `.S` files, the code in them and the
//! debugger's script say the same, for every architecture on every host. What the assembler makes
//! of the code is looked at for the one that is built.

#![cfg(not(miri))]

use std::{collections::BTreeMap, fs, path::Path};

use object::{
    Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolFlags, elf, read::archive::ArchiveFile,
};

/// Where each register lies, bytes from the frame's address; `resume` is the resume address.
type Places = BTreeMap<String, isize>;

struct Architecture {
    name: &'static str,
    word: isize,
    variants: &'static [Variant],
    /// What holds the resume address when it is stored, when it is loaded, and in CFI.
    resume: [&'static str; 3],
}

/// A variant of the ABI, or of what is built.
struct Variant {
    /// That are defined then.
    macros: &'static [&'static str],
    /// What the names of registers begin with that are not saved then.
    left_out: &'static [&'static str],
    /// Which of the sizes that the guide gives its frame has.
    size: usize,
}

const fn variant(
    macros: &'static [&'static str],
    left_out: &'static [&'static str],
    size: usize,
) -> Variant {
    Variant {
        macros,
        left_out,
        size,
    }
}

const ARCHITECTURES: [Architecture; 4] = [
    Architecture {
        name: "x86_64",
        word: 8,
        variants: &[
            variant(&["GREENLET_FP_CONTROL"], &[], 0),
            variant(&[], &["mxcsr", "x87cw"], 0),
        ],
        resume: ["rax", "rax", "rip"],
    },
    Architecture {
        name: "aarch64",
        word: 8,
        variants: &[variant(&[], &[], 0)],
        resume: ["x30", "x30", "x30"],
    },
    Architecture {
        name: "riscv64",
        word: 8,
        variants: &[
            variant(&["__riscv_float_abi_double"], &[], 0),
            variant(&["__riscv_float_abi_single"], &[], 0),
            variant(&["__riscv_float_abi_soft"], &["fs"], 1),
        ],
        resume: ["ra", "t2", "ra"],
    },
    Architecture {
        name: "arm",
        word: 4,
        variants: &[
            variant(&["__ARM_FP"], &[], 0),
            variant(&[], &["d"], 1),
            variant(&["__thumb__"], &["d"], 1),
        ],
        resume: ["lr", "r12", "lr"],
    },
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `s3-s11` is nine registers.
fn registers(range: &str) -> Vec<String> {
    let Some((first, last)) = range.split_once('-') else {
        return vec![range.to_owned()];
    };
    let split = first.find(|c: char| c.is_ascii_digit()).unwrap();
    let (prefix, first) = first.split_at(split);
    let last = last.strip_prefix(prefix).unwrap();
    let number = |digits: &str| digits.parse::<u32>().unwrap();
    (number(first)..=number(last))
        .map(|number| format!("{prefix}{number}"))
        .collect()
}

/// Enters a row of a table, and checks that it begins where the one before has ended.
fn enter(places: &mut Places, end: &mut isize, offset: isize, size: isize, range: &str) {
    assert_eq!(
        offset, *end,
        "{range} is not where the row before has ended"
    );
    for register in registers(range) {
        places.insert(register, *end);
        *end += size;
    }
}

/// Without what a variant leaves out, and without what holds nothing.
fn saved(places: &Places, left_out: &[&str]) -> Places {
    let mut places = places.clone();
    places.retain(|name, _| {
        !name.starts_with('(') && !left_out.iter().any(|prefix| name.starts_with(prefix))
    });
    places
}

/// What the guide says of one architecture.
struct Guide {
    places: Places,
    /// One for each variant.
    sizes: Vec<isize>,
    /// The registers that a new frame fills: parent link, start, argument.
    filled: [String; 3],
}

fn numbers(text: &str) -> Vec<isize> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap())
        .collect()
}

fn guide(architecture: &str) -> Guide {
    let text = read("asm/README.md");
    let (_, section) = text.split_once(&format!("\n### {architecture}\n")).unwrap();
    let section = section.split("\n#").next().unwrap();
    let (mut places, mut end, mut sizes) = (Places::new(), 0, Vec::new());
    let mut filled = [const { String::new() }; 3];
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    for row in rows.skip(1) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [range, offset, size, why, _] = cells[..] else {
            panic!("{architecture}: {row}");
        };
        if range == "(size)" {
            // "208, lp64: 112": the name of a variant holds a number, too.
            let each = offset.split(',').map(|part| *numbers(part).last().unwrap());
            sizes = each.collect();
            continue;
        }
        enter(
            &mut places,
            &mut end,
            numbers(offset)[0],
            numbers(size)[0],
            range,
        );
        for (name, mark) in filled
            .iter_mut()
            .zip(["the parent link", "*start*", "*argument*"])
        {
            if why.contains(mark) {
                range.clone_into(name);
            }
        }
    }
    assert_eq!(
        sizes[0], end,
        "{architecture}: the size is not the end of the last row"
    );
    Guide {
        places,
        sizes,
        filled,
    }
}

/// The frame table at the head of a `.S` file, and the largest size of the frame.
fn head(source: &str) -> (Places, isize) {
    let mut places = Places::new();
    let (_, table) = source.split_once("//   offset  size  holds\n").unwrap();
    let mut end = 0;
    for line in table.lines() {
        let words: Vec<_> = line.trim_start_matches('/').split_whitespace().collect();
        let offset = words[0].parse().unwrap();
        let Ok(size) = words[1].parse::<isize>() else {
            assert_eq!(offset, end, "the frame's size");
            return (places, end);
        };
        if line.contains("then nothing") {
            continue; // of the variant with a smaller frame
        }
        let name = if line.contains("x87 control word") {
            "x87cw"
        } else {
            words[2]
        };
        let range = name.trim_end_matches(',').to_lowercase();
        let count = registers(&range).len();
        enter(&mut places, &mut end, offset, size / count as isize, &range);
    }
    unreachable!("the table ends in the frame's size")
}

/// The lines that the C preprocessor leaves, for what these files ask of it.
fn preprocess<'a>(source: &'a str, macros: &[&str]) -> Vec<&'a str> {
    let mut defined = macros.to_vec();
    let (mut lines, mut open) = (Vec::new(), Vec::new());
    for line in source.lines() {
        let (directive, rest) = line.split_once(' ').unwrap_or((line, ""));
        let condition = |defined: &[&str]| {
            let holds = |term: &str| match term.trim() {
                term if term.starts_with("!defined(") => {
                    !defined.contains(&&term[9..term.len() - 1])
                }
                term if term.starts_with("defined(") => defined.contains(&&term[8..term.len() - 1]),
                // A number, of a macro that is not defined then.
                _ => false,
            };
            rest.split("||").any(|terms| terms.split("&&").all(holds))
        };
        let taken = open.iter().all(|(now, _): &(bool, bool)| *now);
        match directive {
            "#if" => open.push((condition(&defined), condition(&defined))),
            "#ifdef" => open.push((defined.contains(&rest), defined.contains(&rest))),
            "#ifndef" => open.push((!defined.contains(&rest), !defined.contains(&rest))),
            "#elif" => {
                let (now, before) = open.last_mut().unwrap();
                *now = !*before && condition(&defined);
                *before |= *now;
            }
            "#else" => {
                let (now, before) = open.last_mut().unwrap();
                *now = !*before;
            }
            "#endif" => drop(open.pop().unwrap()),
            _ if taken => {
                assert_ne!(directive, "#error", "{rest}");
                if directive == "#define" {
                    defined.push(rest.split([' ', '(']).next().unwrap());
                }
                lines.push(line.split("//").next().unwrap().trim());
            }
            _ => {}
        }
    }
    lines
}

/// The code of one `.S` file in one variant of its ABI.
struct Code<'a> {
    architecture: &'a Architecture,
    lines: Vec<&'a str>,
    constants: BTreeMap<&'a str, isize>,
}

impl<'a> Code<'a> {
    fn new(architecture: &'a Architecture, source: &'a str, macros: &[&str]) -> Self {
        let lines = preprocess(source, macros);
        let defines = lines
            .iter()
            .filter_map(|line| line.strip_prefix("#define FRAME_"));
        let constants = defines
            .map(|define| {
                let (name, value) = define.split_once(' ').unwrap();
                (name, value.trim().parse().unwrap())
            })
            .collect();
        Self {
            architecture,
            lines,
            constants,
        }
    }

    /// `FRAME_R15 - FRAME_MXCSR`, `#FRAME_SIZE`, `4`.
    fn value(&self, sum: &str) -> isize {
        let sum = sum.trim().trim_start_matches('#').replace('-', "+-");
        let terms = sum
            .split('+')
            .map(str::trim)
            .filter(|term| !term.is_empty());
        terms
            .map(|term| {
                let (sign, term) = match term.strip_prefix('-') {
                    Some(term) => (-1, term.trim()),
                    None => (1, term),
                };
                sign * match term.strip_prefix("FRAME_") {
                    Some(name) => self.constants[name],
                    None => term.parse().unwrap_or_else(|_| panic!("not a sum: {sum}")),
                }
            })
            .sum()
    }

    fn size(&self) -> isize {
        self.constants["SIZE"]
    }

    fn defined_places(&self) -> Places {
        let mut places = Places::new();
        for (name, place) in self.constants.iter().filter(|(name, _)| **name != "SIZE") {
            places.insert(name.to_lowercase(), *place);
        }
        // arm.S has a name for the first of its double registers only.
        if self.architecture.name == "arm" {
            for number in 9..=15 {
                places.insert(format!("d{number}"), places["d8"] + 8 * (number - 8));
            }
        }
        places
    }

    /// `LAYOUT(start, FRAME_RBX)` is what the Rust side calls that place.
    fn layout(&self, name: &str) -> isize {
        let begin = format!("LAYOUT({name}, ");
        let line = self.lines.iter().find_map(|line| line.strip_prefix(&begin));
        self.value(line.unwrap().trim_end_matches(')'))
    }

    fn between(&self, begin: &str, end: &str) -> Vec<&'a str> {
        let from = self.lines.iter().position(|line| line.starts_with(begin));
        let lines = &self.lines[from.unwrap()..];
        let to = lines.iter().position(|line| line.starts_with(end));
        lines[..to.unwrap()].to_vec()
    }

    /// Follows the stack pointer through one half of `switch`, and notes what is stored or
    /// loaded, and what CFI says, by its place in the frame.
    fn follow(&self, lines: &[&str], loads: bool) -> Followed {
        let mut seen = Followed::default();
        // The stack pointer and CFI's idea of it, below what it is outside of `switch`.
        let (mut depth, mut cfa) = if loads {
            (self.size(), self.size())
        } else {
            (0, 0)
        };
        let size = self.size();
        let held = self.architecture.resume[usize::from(loads)];
        // Thumb-1 code moves others through r4-r6, and all but the lowest places through r7.
        let mut passed: BTreeMap<&str, &str> = BTreeMap::new();
        let mut base = 0;
        let name = |register: &str| {
            let register = register.trim();
            if register == held {
                "resume".to_owned()
            } else {
                register.to_owned()
            }
        };
        let word = self.architecture.word;
        for line in lines {
            let line = line.strip_prefix("EHABI(").map_or(*line, |_| "");
            let (operation, operands) = line.split_once(' ').unwrap_or((line, ""));
            let list: Vec<_> = operands.split(',').map(str::trim).collect();
            match operation {
                "push" | "vpush" | "pop" | "vpop" => {
                    let width = if operation.starts_with('v') { 8 } else { word };
                    let names = operands.trim_matches(['{', '}']).split(',');
                    let names: Vec<_> = names.flat_map(|range| registers(range.trim())).collect();
                    let bytes = width * names.len() as isize;
                    if !loads {
                        depth += bytes;
                    }
                    for (index, register) in names.iter().enumerate() {
                        let place = size - depth + width * index as isize;
                        let register = passed.get(&**register).copied().unwrap_or(register);
                        seen.moved.insert(name(register), place);
                    }
                    if loads {
                        depth -= bytes;
                    }
                }
                "stmia" | "ldmia" => {
                    let (_, range) = operands.split_once(',').unwrap();
                    let names = registers(range.trim().trim_matches(['{', '}']));
                    for (index, register) in names.iter().enumerate() {
                        let register = passed.get(&**register).copied().unwrap_or(register);
                        seen.moved
                            .insert(name(register), base + word * index as isize);
                    }
                }
                "mov" if self.architecture.name == "arm" => match seen.moved.get(list[1]) {
                    Some(&place) if loads => drop(seen.moved.insert(name(list[0]), place)),
                    _ => drop(passed.insert(list[0], list[1])),
                },
                "add" if list[0] == "r7" => base = size - depth + self.value(list[2]),
                "sub" if list[0].ends_with("sp") => depth += self.value(list.last().unwrap()),
                "add" if list[0].ends_with("sp") => depth -= self.value(list.last().unwrap()),
                "addi" if list[0] == "sp" => depth -= self.value(list[2]),
                "stmxcsr" | "fnstcw" | "ldmxcsr" | "fldcw" => {
                    let at = operands.trim_matches(['[', ']']).trim_start_matches("rsp");
                    let register = if operation.contains("mx") {
                        "mxcsr"
                    } else {
                        "x87cw"
                    };
                    seen.moved
                        .insert(register.to_owned(), size - depth + self.value(at));
                }
                "stp" | "ldp" => {
                    let at = self.value(list[3].trim_end_matches(']')) + size - depth;
                    seen.moved.insert(name(list[0]), at);
                    seen.moved.insert(name(list[1]), at + word);
                }
                "sd" | "ld" | "FSAVE" | "FLOAD" => {
                    if let Some(at) = list[1].strip_suffix("(sp)") {
                        seen.moved
                            .insert(name(list[0]), self.value(at) + size - depth);
                    }
                }
                ".cfi_def_cfa" => (depth, cfa) = (self.value(list[1]), self.value(list[1])),
                ".cfi_def_cfa_offset" => cfa = self.value(list[0]),
                ".cfi_adjust_cfa_offset" => cfa += self.value(list[0]),
                ".cfi_rel_offset" => {
                    let place = self.value(list[1]) + size - depth;
                    seen.described.insert(self.in_cfi(list[0]), place);
                }
                ".cfi_restore" | ".cfi_register" => seen.restored.push(self.in_cfi(list[0])),
                _ => continue,
            }
            // Each instruction that moves the stack pointer is followed by its directive.
            if operation.starts_with(".cfi_def_cfa") || operation.starts_with(".cfi_adjust") {
                assert_eq!(cfa, depth, "CFI and stack pointer part at {line}");
            }
        }
        assert_eq!(depth, if loads { seen.end(size) } else { size });
        seen.restored.sort();
        seen.restored.dedup();
        seen
    }

    fn in_cfi(&self, register: &str) -> String {
        let register = register.trim();
        if register == self.architecture.resume[2] {
            "resume"
        } else {
            register
        }
        .to_owned()
    }

    /// The places of the parent's registers, by the CFI of `entry`.
    fn described_by_entry(&self) -> Places {
        let lines = self.between("FUNCTION SYM(entry)", "LABEL SYM(entry_pc)");
        let offsets = lines
            .iter()
            .filter_map(|line| line.strip_prefix(".cfi_offset "));
        offsets
            .map(|offset| {
                let (register, offset) = offset.split_once(',').unwrap();
                (self.in_cfi(register), self.value(offset) + self.size())
            })
            .collect()
    }
}

#[derive(Default)]
struct Followed {
    moved: Places,
    described: Places,
    restored: Vec<String>,
}

impl Followed {
    /// The second half of x86_64.S ends in the part that is out of the way, on the full frame.
    fn end(&self, size: isize) -> isize {
        if self.moved.contains_key("mxcsr") {
            size
        } else {
            0
        }
    }
}

/// Runs `check` with each variant of each architecture and what it saves by the guide.
fn for_each_variant(check: impl Fn(&Code<'_>, &Places, &Guide, &Variant)) {
    for architecture in &ARCHITECTURES {
        let guide = guide(architecture.name);
        let source = read(&format!("asm/{}.S", architecture.name));
        for variant in architecture.variants {
            println!("{} {:?}", architecture.name, variant.macros);
            let code = Code::new(architecture, &source, variant.macros);
            let places = saved(&guide.places, variant.left_out);
            check(&code, &places, &guide, variant);
        }
    }
}

/// CFI has no columns for the control words of x86_64.
fn in_unwind_tables(places: &Places) -> Places {
    let mut places = places.clone();
    places.retain(|name, _| name != "mxcsr" && name != "x87cw");
    places
}

#[test]
fn guide_and_head_of_each_file_agree() {
    for Architecture { name, .. } in &ARCHITECTURES {
        let (places, size) = head(&read(&format!("asm/{name}.S")));
        let guide = guide(name);
        assert_eq!(saved(&places, &[]), saved(&guide.places, &[]), "{name}");
        assert_eq!(size, guide.sizes[0], "{name}");
    }
}

#[test]
fn guide_and_constants_agree() {
    for_each_variant(|code, places, guide, variant| {
        let defined = saved(&code.defined_places(), variant.left_out);
        assert_eq!(defined, *places);
        assert_eq!(code.size(), guide.sizes[variant.size]);
        let filled = guide.filled.each_ref().map(|register| places[register]);
        assert_eq!(
            filled,
            ["frame_pointer", "start", "argument"].map(|name| code.layout(name))
        );
        assert_eq!(code.layout("resume"), places["resume"]);
    });
}

#[test]
fn switch_stores_and_resume_loads_what_the_guide_says() {
    for_each_variant(|code, places, _, _| {
        let stores = code.follow(
            &code.between("FUNCTION SYM(switch)", "LABEL SYM(resume)"),
            false,
        );
        assert_eq!(stores.moved, *places, "stores");
        let loads = code.between("LABEL SYM(resume)", "END_FUNCTION SYM(switch)");
        let mut loads = code.follow(&loads, true);
        // arm.S fills the unused word with it.
        loads.moved.remove("lr");
        assert_eq!(loads.moved, *places, "loads");
    });
}

#[test]
fn unwind_tables_describe_what_the_guide_says() {
    for_each_variant(|code, places, _, _| {
        let described = in_unwind_tables(places);
        let stores = code.follow(
            &code.between("FUNCTION SYM(switch)", "LABEL SYM(resume)"),
            false,
        );
        assert_eq!(stores.described, described, "in switch");
        let loads = code.between("LABEL SYM(resume)", "END_FUNCTION SYM(switch)");
        let loads = code.follow(&loads, true);
        assert_eq!(
            loads.restored,
            described.keys().cloned().collect::<Vec<_>>(),
            "in resume"
        );
        assert_eq!(code.described_by_entry(), described, "in entry");
    });
}

/// The rows of the guide's list of symbols that are for what is built.
fn listed_symbols() -> Vec<String> {
    let text = read("asm/README.md");
    let (_, table) = text.split_once("| symbol | in |").unwrap();
    let table = table.split("\n\n").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut names: Vec<_> = rows
        .filter_map(|row| {
            let (name, rest) = row.split_once("` | ").unwrap();
            let place = rest.split(" | ").next().unwrap();
            let is_there = match place.strip_prefix(std::env::consts::ARCH) {
                Some("") => true,
                Some(" with `fp-control`") => cfg!(feature = "fp-control"),
                _ => place == "every core",
            };
            let version = env!("CARGO_PKG_VERSION").replace(['.', '-', '+'], "_");
            is_there.then(|| format!("greenlet_{version}_{name}"))
        })
        .collect();
    names.sort();
    names
}

/// Calls `look` with each object of the assembled core, where `build.rs` has put it.
fn for_each_object(mut look: impl FnMut(&object::File<'_>)) {
    let archive = fs::read(concat!(env!("OUT_DIR"), "/libgreenlet_core.a")).unwrap();
    let members = ArchiveFile::parse(&*archive).unwrap();
    let mut objects = 0;
    for member in members.members() {
        // Aligned, as in a file of its own.
        let data = member.unwrap().data(&*archive).unwrap().to_vec();
        look(&object::File::parse(&*data).expect("an object file"));
        objects += 1;
    }
    assert!(objects > 0);
}

#[test]
fn the_core_has_the_symbols_that_the_guide_lists_and_hides_them() {
    let mut names = Vec::new();
    for_each_object(|object| {
        for symbol in object.symbols().filter(|symbol| symbol.is_global()) {
            let name = symbol.name().unwrap();
            // 32-bit ARM's unwind tables ask for a routine of the C library.
            if symbol.is_undefined() {
                continue;
            }
            let SymbolFlags::Elf { st_other, .. } = symbol.flags() else {
                panic!("not an ELF symbol: {name}");
            };
            assert_eq!(st_other & 3, elf::STV_HIDDEN, "{name}");
            names.push(name.to_owned());
        }
    });
    names.sort();
    assert_eq!(names, listed_symbols());
}

#[test]
fn each_object_of_the_core_says_that_it_needs_no_executable_stack() {
    for_each_object(|object| {
        let note = object.section_by_name(".note.GNU-stack").expect("the note");
        let SectionFlags::Elf { sh_flags } = note.flags() else {
            panic!("not an ELF section: {:?}", note.flags());
        };
        assert_eq!(sh_flags & u64::from(elf::SHF_EXECINSTR), 0);
    });
}

#[test]
fn debuggers_script_knows_the_frames() {
    let script = read("src/greenlet-gdb.py");
    for Architecture { name, word, .. } in &ARCHITECTURES {
        let begin = format!("\n    \"{name}\": ({word}, {{");
        let (_, frame) = script.split_once(&begin).unwrap();
        let entries = frame.split('}').next().unwrap().split(',');
        let places: Places = entries
            .map(|entry| {
                let (register, place) = entry.split_once(':').unwrap();
                let register = register.trim().trim_matches('"');
                let register = match register {
                    "rip" | "pc" => "resume",
                    register => register,
                };
                (register.to_owned(), place.trim().parse().unwrap())
            })
            .collect();
        // No frame is found with the help of these.
        let others = ["mxcsr", "x87cw", "d", "fs"];
        assert_eq!(places, saved(&guide(name).places, &others), "{name}");
    }
}

#[test]
fn register_tests_look_at_all_that_the_guide_names() {
    for Architecture { name, .. } in &ARCHITECTURES {
        // ARM and Thumb code have one table.
        let table = if *name == "arm" { "aapcs32" } else { name };
        let test = read(&format!("tests/registers/{table}.rs"));
        let mut tested: Vec<_> = test
            .lines()
            .filter_map(|line| line.trim().strip_prefix("(\""))
            .map(|line| line.split('"').next().unwrap().to_lowercase())
            .map(|register| {
                if register.starts_with("x87") {
                    "x87cw".to_owned()
                } else {
                    register
                }
            })
            .collect();
        tested.sort();
        let mut places = saved(&guide(name).places, &[]);
        places.remove("resume");
        assert_eq!(tested, places.into_keys().collect::<Vec<_>>(), "{name}");
    }
}
