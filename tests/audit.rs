//! What `asm/README.md` tells an auditor, the heads of the `.S` files, the code in them and the
//! debugger's script say the same, for every architecture on every host. What the assembler makes
//! of the code is looked at for the one that is built.

#![cfg(not(miri))]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use object::{
    Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolFlags, elf, read::archive::ArchiveFile,
};

/// Where each register lies, bytes from the context's address; `resume` is the resume address.
type Places = BTreeMap<String, isize>;

struct Architecture {
    name: &'static str,
    /// Of its files. Two architectures that share one differ in the size of a word.
    file: &'static str,
    word: isize,
    /// The macros that are defined in each variant of the ABI, or of what is built, and comparisons
    /// that hold.
    variants: &'static [&'static [&'static str]],
    /// What holds the resume address when it is stored, when it is loaded, and in CFI.
    resume: [&'static str; 3],
    /// The numbers of registers in DWARF, if they are not at the end of their names.
    dwarf: &'static [(&'static str, u8)],
    /// Among the clobbers of `src/arch`, one that the ABI lets a callee change.
    link: &'static [&'static str],
}

const ARCHITECTURES: [Architecture; 5] = [
    Architecture {
        name: "x86_64",
        file: "x86_64",
        word: 8,
        variants: &[&["GREENLET_FP_CONTROL", "GREENLET_THREAD_WORDS"], &[]],
        resume: ["rax", "rax", "rip"],
        dwarf: &[("rbx", 3), ("rbp", 6), ("rsp", 7), ("rip", 16)],
        link: &[],
    },
    Architecture {
        name: "aarch64",
        file: "aarch64",
        word: 8,
        variants: &[&[], &["__ARM_FEATURE_BTI_DEFAULT"]],
        resume: ["x9", "x9", "x30"],
        dwarf: &[("sp", 31)],
        link: &[],
    },
    Architecture {
        name: "riscv64",
        file: "riscv",
        word: 8,
        variants: &[&[], &["__riscv_float_abi_soft"]],
        resume: ["t1", "t2", "ra"],
        dwarf: &[("ra", 1), ("sp", 2), ("s0", 8), ("s1", 9)],
        link: &[],
    },
    Architecture {
        name: "riscv32",
        file: "riscv",
        word: 4,
        variants: &[
            &["__riscv_xlen == 32"],
            &["__riscv_xlen == 32", "__riscv_float_abi_soft"],
        ],
        resume: ["t1", "t2", "ra"],
        dwarf: &[("ra", 1), ("sp", 2), ("s0", 8), ("s1", 9)],
        link: &[],
    },
    Architecture {
        name: "arm",
        file: "arm",
        word: 4,
        variants: &[&["__unix__", "__ARM_FP"], &["__thumb__"]],
        resume: ["r4", "r4", "lr"],
        dwarf: &[("sp", 13), ("lr", 14)],
        link: &["lr"],
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

/// The rows `names, offset, size` of a table; each begins where the one before has ended.
fn places<'a>(rows: impl Iterator<Item = (&'a str, isize, isize)>) -> (Places, isize) {
    let (mut places, mut end) = (Places::new(), 0);
    for (name, offset, size) in rows {
        assert_eq!(offset, end, "{name} is not where the row before has ended");
        places.insert(name.to_owned(), offset);
        end += size;
    }
    (places, end)
}

/// What the guide says of one architecture.
struct Guide {
    places: Places,
    size: isize,
    left_to_the_compiler: BTreeSet<String>,
    /// The registers that a new context fills: parent link, argument.
    filled: [String; 2],
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
    let rows: Vec<[&str; 4]> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .skip(1)
        .map(|row| {
            let mut cells = row.split('|').map(str::trim);
            [(); 4].map(|()| cells.next().unwrap())
        })
        .collect();
    let (places, size) = places(
        rows.iter()
            .map(|[name, offset, size, _]| (*name, numbers(offset)[0], numbers(size)[0])),
    );
    let filled = ["the parent link", "*argument*"].map(|mark| {
        let row = rows.iter().find(|[.., why]| why.contains(mark));
        row.unwrap()[0].to_owned()
    });
    let (_, left) = section.split_once("Left to the compiler (").unwrap();
    let (_, left) = left.split_once("):").unwrap();
    Guide {
        places,
        size,
        left_to_the_compiler: list_of_registers(left.split('.').next().unwrap()),
        filled,
    }
}

/// `r4, r5, d8-d15` is ten registers.
fn list_of_registers(list: &str) -> BTreeSet<String> {
    let ranges = list.split(',').map(str::trim);
    ranges.flat_map(registers).collect()
}

/// The table of registers at the head of a `.S` file, its largest size, and what it says is left to
/// the compiler. A file for two architectures has their names over two pairs of columns.
fn head<'a>(source: &'a str, architecture: &str) -> (Places, isize, BTreeSet<String>) {
    let words = |line: &'a str| line.trim_start_matches('/').split_whitespace();
    let (before, table) = source.split_once("  holds\n").unwrap();
    let [names, columns] = [1, 0].map(|back| before.lines().rev().nth(back).unwrap());
    let pairs = words(columns).count() / 2;
    let pair = match pairs {
        1 => 0,
        _ => words(names).position(|name| name == architecture).unwrap(),
    };
    let rows = table.lines().map_while(|line| {
        let mut words = words(line);
        let numbers: Option<Vec<isize>> =
            (0..2 * pairs).map(|_| words.next()?.parse().ok()).collect();
        let numbers = numbers?;
        let name = match words.next()? {
            "MXCSR" => "mxcsr",
            "x87" => "x87cw",
            name => name,
        };
        Some((name, numbers[2 * pair], numbers[2 * pair + 1]))
    });
    let (places, size) = places(rows);
    let (_, left) = source
        .split_once("// Registers of the caller that are left to the compiler: ")
        .unwrap();
    let left = left.split('.').next().unwrap();
    (places, size, list_of_registers(left))
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
                // A comparison; or a number, of a macro that is not defined then.
                term => defined.contains(&term),
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
            .filter_map(|line| line.strip_prefix("#define CONTEXT_"));
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

    fn places(&self) -> Places {
        let constants = self.constants.iter().filter(|(name, _)| **name != "SIZE");
        constants
            .map(|(name, place)| (name.to_lowercase(), *place))
            .collect()
    }

    /// `LAYOUT(argument, CONTEXT_RBX)` is what the Rust side calls that place.
    fn layout(&self, name: &str) -> isize {
        let begin = format!("LAYOUT({name}, CONTEXT_");
        let line = self.lines.iter().find_map(|line| line.strip_prefix(&begin));
        self.constants[line.unwrap().trim_end_matches(')')]
    }

    fn between(&self, begin: &str, end: &str) -> &[&'a str] {
        let from = self.lines.iter().position(|line| *line == begin);
        let lines = &self.lines[from.unwrap_or_else(|| panic!("no {begin}"))..];
        let to = lines.iter().position(|line| *line == end);
        &lines[..to.unwrap()]
    }

    /// Where the macro stores registers in a context, or takes them from one.
    fn moved(&self, name: &str, loads: bool) -> Places {
        let mut moved = Places::new();
        // What others pass through: registers that instructions cannot store or load.
        let mut passed: BTreeMap<&str, &str> = BTreeMap::new();
        let mut last = BTreeMap::new();
        let held = self.architecture.resume[usize::from(loads)];
        for line in self.between(&format!(".macro {name}"), ".endm") {
            let Some((operation, operands)) = line.split_once(' ') else {
                continue;
            };
            let list: Vec<_> = operands.split(',').map(str::trim).collect();
            let Some((_, place)) = line.split_once("CONTEXT_") else {
                if operation == "mov" {
                    if let Some(place) = last.get(list[1]) {
                        moved.retain(|_, at| at != place);
                        moved.insert(list[0].to_owned(), *place);
                    } else {
                        passed.insert(list[0], list[1]);
                    }
                }
                continue;
            };
            let place = self.constants[place.split([']', '(', ',']).next().unwrap()];
            let registers = match operation {
                "stmxcsr" | "ldmxcsr" => vec!["mxcsr"],
                "fnstcw" | "fldcw" => vec!["x87cw"],
                "stp" | "ldp" => vec![list[0], list[1]],
                _ => vec![*list.iter().find(|word| !word.contains('[')).unwrap()],
            };
            for (index, register) in registers.into_iter().enumerate() {
                let at = place + self.architecture.word * index as isize;
                let name = match passed.get(register) {
                    _ if register == held => "resume",
                    Some(original) if !loads => original,
                    _ => register,
                };
                moved.insert(name.to_owned(), at);
                last.insert(register, at);
            }
        }
        moved
    }

    /// Where the parent's registers lie, by the expressions of `entry`, which all begin with the
    /// given operations; the stack pointer is that of the CFA.
    fn described(&self, lines: &[&str], begin: &[&str]) -> Places {
        let mut described = Places::new();
        for line in lines {
            let Some(bytes) = line.strip_prefix(".cfi_escape ") else {
                continue;
            };
            let bytes: Vec<_> = bytes.split(',').map(str::trim).collect();
            let (register, expression) = match bytes[0] {
                "0x0f" => (None, &bytes[1..]),
                "0x10" => (Some(bytes[1]), &bytes[2..]),
                other => panic!("{other} in {line}"),
            };
            let (length, operations) = (expression[0], &expression[1..]);
            let length = length.trim_start_matches("0x").parse().unwrap();
            assert_eq!(operations.len(), length, "{line}");
            let (first, rest) = operations.split_at(begin.len());
            assert_eq!(first, begin, "{line}");
            let name = match register {
                None => {
                    assert_eq!(rest[1..], ["0x06"], "{line}");
                    if self.architecture.name == "x86_64" {
                        "rsp".to_owned()
                    } else {
                        "sp".to_owned()
                    }
                }
                Some(number) => {
                    assert_eq!(rest.len(), 1, "{line}");
                    self.register(number.parse().unwrap())
                }
            };
            let place = self.constants[rest[0].strip_prefix("CONTEXT_").unwrap()];
            described.insert(name, place);
        }
        described
    }

    fn register(&self, number: u8) -> String {
        let names = self.architecture.dwarf.iter();
        let name = names
            .filter(|(_, of_name)| *of_name == number)
            .map(|(name, _)| (*name).to_owned())
            .next();
        let letter = if self.architecture.name == "arm" {
            "r"
        } else {
            "x"
        };
        let name = name.unwrap_or_else(|| format!("{letter}{number}"));
        if name == self.architecture.resume[2] {
            "resume".to_owned()
        } else {
            name
        }
    }
}

/// Runs `check` with each variant of each architecture and what the guide says of it.
fn for_each_variant(check: impl Fn(&Code<'_>, &Places, &Guide)) {
    for architecture in &ARCHITECTURES {
        let guide = guide(architecture.name);
        let source = read(&format!("asm/{}.S", architecture.file));
        for variant in architecture.variants {
            println!("{} {variant:?}", architecture.name);
            let code = Code::new(architecture, &source, variant);
            let mut places = guide.places.clone();
            if !variant.contains(&"GREENLET_FP_CONTROL") {
                places = in_unwind_tables(&places);
            }
            check(&code, &places, &guide);
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
    for Architecture {
        name, file, link, ..
    } in &ARCHITECTURES
    {
        let (places, size, left) = head(&read(&format!("asm/{file}.S")), name);
        let guide = guide(name);
        assert_eq!(places, guide.places, "{name}");
        assert_eq!(size, guide.size, "{name}");
        let mut left_by_guide = guide.left_to_the_compiler;
        // Which of its calls' registers the head names is its own choice.
        let calls = ["x30", "ra"].iter().chain(*link);
        left_by_guide.extend(
            calls
                .filter(|name| left.contains(**name))
                .map(|name| (*name).into()),
        );
        assert_eq!(left, left_by_guide, "{name}");
    }
}

#[test]
fn guide_and_constants_agree() {
    for_each_variant(|code, places, guide| {
        assert_eq!(code.places(), *places);
        let filled = guide.filled.each_ref().map(|register| places[register]);
        assert_eq!(
            filled,
            ["frame_pointer", "argument"].map(|name| code.layout(name))
        );
        assert_eq!(code.layout("resume"), places["resume"]);
        assert_eq!(code.layout("size"), code.constants["SIZE"]);
    });
}

#[test]
fn switch_stores_and_loads_what_the_guide_says() {
    for_each_variant(|code, places, _| {
        assert_eq!(code.moved("SAVE", false), *places, "stores");
        // `resume` loads the control words where they differ.
        assert_eq!(code.moved("LOAD", true), in_unwind_tables(places), "loads");
    });
}

#[test]
fn compiler_is_told_that_a_switch_changes_what_is_left_to_it() {
    for Architecture { name, file, .. } in &ARCHITECTURES {
        let source = read(&format!("src/arch/{file}.rs"));
        let blocks: Vec<_> = source
            .split("include_str!")
            .skip(1)
            .map(|rest| rest.split("options(raw)").next().unwrap())
            .collect();
        assert!(!blocks.is_empty());
        for block in blocks {
            let told: BTreeSet<_> = block
                .lines()
                .filter_map(|line| line.trim().strip_prefix("out(\""))
                .map(|rest| rest.strip_suffix("\") _,").unwrap().to_owned())
                .collect();
            assert_eq!(told, guide(name).left_to_the_compiler, "{name}");
        }
    }
}

#[test]
fn unwind_tables_describe_what_the_guide_says() {
    let begin = |name| -> [&[&str]; 2] {
        match name {
            "x86_64" => [&["0x76", "0x00", "0x06", "0x23"], &["0x74"]],
            "aarch64" => [&["0x8d", "0x00", "0x06", "0x23"], &["0x71"]],
            "riscv64" | "riscv32" => [&["0x78", "0x00", "0x06", "0x23"], &["0x7b"]],
            "arm" => [&["0x7b", "0x00", "0x06", "0x23"], &["0x71"]],
            other => panic!("{other}"),
        }
    };
    for_each_variant(|code, places, _| {
        let places = in_unwind_tables(places);
        let [parent, resumed] = begin(code.architecture.name);
        let entry = code.between("FUNCTION SYM(entry), 4", "LABEL SYM(entry_pc)");
        assert_eq!(code.described(entry, parent), places, "the parent's");
        let rules = code.between(".macro CALLER_IS_RESUMED", ".endm");
        assert_eq!(code.described(rules, resumed), places, "the resumed one's");
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
                Some(" with `std`, without `asan`, `tsan`, `valgrind`") => !cfg!(any(
                    feature = "asan",
                    feature = "tsan",
                    feature = "valgrind"
                )),
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
fn debuggers_script_knows_the_contexts() {
    let script = read("src/greenlet-gdb.py");
    for Architecture { name, word, .. } in &ARCHITECTURES {
        let begin = format!("\n    \"{name}\": ({word}, {{");
        let (_, context) = script.split_once(&begin).unwrap();
        let entries = context.split('}').next().unwrap().split(',');
        let places: Places = entries
            .map(|entry| {
                let (register, place) = entry.split_once(':').unwrap();
                let register = match register.trim().trim_matches('"') {
                    "rip" | "pc" => "resume",
                    register => register,
                };
                (register.to_owned(), place.trim().parse().unwrap())
            })
            .collect();
        // No frame is found with the help of the control words.
        assert_eq!(places, in_unwind_tables(&guide(name).places), "{name}");
    }
}

#[test]
fn register_tests_look_at_all_that_the_guide_names() {
    for Architecture {
        name, file, link, ..
    } in &ARCHITECTURES
    {
        // ARM and Thumb code have one table.
        let table = if *name == "arm" { "aapcs32" } else { file };
        let test = read(&format!("tests/registers/{table}.rs"));
        let tested: BTreeSet<_> = test
            .lines()
            .filter_map(|line| line.trim().strip_prefix("(\""))
            .map(|line| line.split('"').next().unwrap().to_lowercase())
            .map(|register| match register.strip_prefix("x87") {
                Some(_) => "x87cw".to_owned(),
                None => register,
            })
            .collect();
        let Guide {
            places,
            left_to_the_compiler,
            ..
        } = guide(name);
        let mut named: BTreeSet<_> = places.into_keys().chain(left_to_the_compiler).collect();
        // Without the first two control would not come back; the low halves are tested.
        for register in ["resume", "sp", "rsp"].iter().chain(*link) {
            named.remove(*register);
        }
        if *name == "aarch64" {
            named = named.iter().map(|name| name.replace('v', "d")).collect();
        }
        assert_eq!(tested, named, "{name}");
    }
}
