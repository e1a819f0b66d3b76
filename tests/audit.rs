//! `asm/README.md`, the heads of the `.S` files, their constants, the clobbers of `src/arch`, the
//! register tests and the debugger's script agree, for every architecture on every host. The object code
//! of the architecture that is built has the symbols and sections that `asm/README.md` lists.
//! `ci/prove.sh` proves that the code and its unwind tables do what `asm/README.md` says.

#![cfg(not(miri))]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use object::{
    Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolFlags, elf, read::archive::ArchiveFile,
};

/// The offset of each register in the context, bytes; `resume` is the resume address. On Windows the
/// fields of the thread environment block are among them.
type Places = BTreeMap<String, isize>;

struct Architecture {
    name: &'static str,
    /// The name of its files. Two architectures that share a file differ in the size of a word.
    file: &'static str,
    word: isize,
    /// For each size of a context, the defined macros and the comparisons that hold.
    variants: &'static [&'static [&'static str]],
    /// A register among the clobbers of `src/arch` that is not callee-saved.
    link: &'static [&'static str],
}

const WINDOWS: &str = "x86_64_windows";

const ARCHITECTURES: [Architecture; 6] = [
    Architecture {
        name: "x86_64",
        file: "x86_64",
        word: 8,
        variants: &[&["GREENLET_FP_CONTROL"], &[]],
        link: &[],
    },
    Architecture {
        name: WINDOWS,
        file: "x86_64_windows",
        word: 8,
        variants: &[&["GREENLET_FP_CONTROL"], &[]],
        link: &[],
    },
    Architecture {
        name: "aarch64",
        file: "aarch64",
        word: 8,
        variants: &[&[]],
        link: &[],
    },
    Architecture {
        name: "riscv64",
        file: "riscv",
        word: 8,
        variants: &[&[]],
        link: &[],
    },
    Architecture {
        name: "riscv32",
        file: "riscv",
        word: 4,
        variants: &[&["__riscv_xlen == 32"]],
        link: &[],
    },
    Architecture {
        name: "arm",
        file: "arm",
        word: 4,
        variants: &[&[]],
        link: &["lr"],
    },
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Expands a range: `s3-s11` is nine registers.
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

/// Returns the offsets of the rows `name, offset, size`, and the size of all. Each row must begin where the
/// one before ends.
fn places<'a>(rows: impl Iterator<Item = (&'a str, isize, isize)>) -> (Places, isize) {
    let (mut places, mut end) = (Places::new(), 0);
    for (name, offset, size) in rows {
        assert_eq!(offset, end, "{name} is not where the row before has ended");
        places.insert(name.to_owned(), offset);
        end += size;
    }
    (places, end)
}

/// What `asm/README.md` says of one architecture.
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

/// Expands a list: `r4, r5, d8-d15` is ten registers.
fn list_of_registers(list: &str) -> BTreeSet<String> {
    let ranges = list.split(',').map(str::trim);
    ranges.flat_map(registers).collect()
}

/// Reads the table of registers at the head of a `.S` file, its largest size, and the registers left to
/// the compiler. A file for two architectures has their names above two pairs of columns.
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

/// Returns the lines that the C preprocessor keeps. Knows the directives that these files use.
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
                // A comparison, or an expression: both are compared as text.
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

/// The `CONTEXT_*` of one `.S` file with one size of a context.
struct Code<'a> {
    lines: Vec<&'a str>,
    constants: BTreeMap<&'a str, isize>,
}

impl<'a> Code<'a> {
    fn new(source: &'a str, macros: &[&str]) -> Self {
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
        Self { lines, constants }
    }

    fn places(&self) -> Places {
        let constants = self.constants.iter().filter(|(name, _)| **name != "SIZE");
        constants
            .map(|(name, place)| (name.to_lowercase(), *place))
            .collect()
    }

    /// The offset for which Rust uses this name: `LAYOUT(argument, CONTEXT_RBX)`.
    fn layout(&self, name: &str) -> isize {
        let begin = format!("LAYOUT({name}, CONTEXT_");
        let line = self.lines.iter().find_map(|line| line.strip_prefix(&begin));
        self.constants[line.unwrap().trim_end_matches(')')]
    }
}

/// The control words of x86_64 are saved with `fp-control` only, and unwinding does not need them.
fn without_control_words(places: &Places) -> Places {
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
        // The head may also name the link register, which is not callee-saved.
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
    for architecture in &ARCHITECTURES {
        let guide = guide(architecture.name);
        let source = read(&format!("asm/{}.S", architecture.file));
        for variant in architecture.variants {
            println!("{} {variant:?}", architecture.name);
            let code = Code::new(&source, variant);
            let mut places = guide.places.clone();
            if !variant.contains(&"GREENLET_FP_CONTROL") {
                places = without_control_words(&places);
            }
            assert_eq!(code.places(), places);
            let filled = guide.filled.each_ref().map(|register| places[register]);
            let layout = ["frame_pointer", "argument"].map(|name| code.layout(name));
            assert_eq!(filled, layout);
            assert_eq!(code.layout("resume"), places["resume"]);
            assert_eq!(code.layout("size"), code.constants["SIZE"]);
        }
    }
}

#[test]
fn registers_left_to_the_compiler_are_declared_clobbered() {
    for Architecture { name, file, .. } in &ARCHITECTURES {
        // Windows uses the block of x86_64, whose `clobber_abi` declares more registers.
        let source = match *name {
            WINDOWS => read("src/arch/x86_64.rs"),
            _ => read(&format!("src/arch/{file}.rs")),
        };
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
            let mut left = guide(name).left_to_the_compiler;
            if *name == WINDOWS {
                // A callee of System V's ABI may change all vector registers (psABI 3.2.1).
                assert!(block.contains("clobber_abi(\"sysv64\")"));
                left.retain(|register| !register.starts_with("xmm"));
                let is_operand = |name: &str| block.contains(&format!("inout(\"{name}\")"));
                left.retain(|register| !is_operand(register));
            }
            assert_eq!(told, left, "{name}");
        }
    }
}

/// The function of a TLS descriptor must preserve vector registers. That of glibc before 2.40 does not
/// (`thread_words`).
#[test]
fn vector_registers_are_declared_clobbered_where_a_tls_descriptor_is_called() {
    let source = read("src/arch/x86_64.rs");
    for block in source.split("asm!(").skip(1) {
        let block = block.split("options(").next().unwrap();
        if block.contains("@tlscall") {
            let registers = (0..32)
                .map(|n| format!("xmm{n}"))
                .chain((0..8).map(|n| format!("k{n}")));
            for register in registers {
                let clobber = format!("out(\"{register}\") _,");
                assert!(block.contains(&clobber), "{register} is not in:\n{block}");
            }
        } else if block.contains("include_str!") {
            assert!(block.contains("clobber_abi(\"sysv64\")"), "in:\n{block}");
        }
    }
    assert!(source.contains("@tlscall"));
}

/// The symbols that `asm/README.md` lists for this build.
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

/// Calls `look` with each object file of the core that `build.rs` has assembled.
fn for_each_object(mut look: impl FnMut(&object::File<'_>)) {
    let archive = fs::read(concat!(env!("OUT_DIR"), "/libgreenlet_core.a")).unwrap();
    let members = ArchiveFile::parse(&*archive).unwrap();
    let mut objects = 0;
    for member in members.members() {
        // A copy is aligned.
        let data = member.unwrap().data(&*archive).unwrap().to_vec();
        look(&object::File::parse(&*data).expect("an object file"));
        objects += 1;
    }
    assert!(objects > 0);
}

#[test]
#[cfg_attr(target_vendor = "apple", ignore = "tests/mach_o.rs does it for Mach-O")]
fn the_core_has_the_symbols_that_the_guide_lists_and_hides_them() {
    let mut names = Vec::new();
    for_each_object(|object| {
        for symbol in object.symbols().filter(|symbol| symbol.is_global()) {
            let name = symbol.name().unwrap();
            // 32-bit ARM's unwind tables refer to a routine of the C library.
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
#[cfg_attr(target_vendor = "apple", ignore = "Mach-O has no such note")]
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
    let script = read("src/diagnostics/greenlet-gdb.py");
    // The script reads ELF programs.
    let of_elf = ARCHITECTURES.iter().filter(|it| it.name != WINDOWS);
    for Architecture { name, word, .. } in of_elf {
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
        assert_eq!(places, without_control_words(&guide(name).places), "{name}");
    }
}

#[test]
fn register_tests_check_all_registers_of_the_guide() {
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
            // `xmm6, low` is a half of xmm6.
            .map(|line| line.split(['"', ',']).next().unwrap().to_lowercase())
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
        // A switch that did not preserve these would not return.
        for register in ["resume", "sp", "rsp"].iter().chain(*link) {
            named.remove(*register);
        }
        if *name == WINDOWS {
            // tests/windows.rs tests the fields of the thread environment block.
            for word in [
                "exception_list",
                "stack_base",
                "stack_limit",
                "deallocation",
                "guaranteed",
            ] {
                assert!(named.remove(word), "{word}");
            }
        }
        // Only the low halves of the vector registers are callee-saved.
        if *name == "aarch64" {
            named = named.iter().map(|name| name.replace('v', "d")).collect();
        }
        assert_eq!(tested, named, "{name}");
    }
}

/// Returns the words of `text` that are names of targets.
fn targets(text: &str) -> BTreeSet<&str> {
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.split(|c| !is_in_name(c))
        .filter(|word| {
            ["-unknown-linux-", "-none-", "-apple-", "-pc-windows-"]
                .iter()
                .any(|part| word.contains(part))
        })
        .collect()
}

/// Returns the text between `begin` and the next `end`.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = text
        .split_once(begin)
        .unwrap_or_else(|| panic!("no {begin}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end}")).0
}

#[test]
fn guide_and_scripts_list_the_same_targets() {
    let guide = read("src/guide/targets.md");
    let table = between(&guide, "| target | switch core |", "\n\n");
    let rows = |runner: &str| -> String {
        let rows = table.lines().filter(|row| row.contains(runner));
        rows.map(|row| format!("{row}\n")).collect()
    };

    let cross = read("ci/cross.sh");
    let cross = between(&cross, "\nTARGETS='\n", "'\n");
    assert_eq!(targets(&rows("ci/cross.sh")), targets(cross));
    for line in cross.lines() {
        let mut words = line.split_whitespace();
        let [short, triple] = [(); 2].map(|()| words.next().unwrap());
        assert!(rows(&format!("`ci/cross.sh {short}`")).contains(&format!("`{triple}`")));
    }

    let boards = read("ci/boards.sh");
    let boards = targets(between(&boards, "\nTARGETS=(\n", ")\n"));
    assert_eq!(targets(&rows("ci/boards.sh")), boards);
    let settings = read("tests/boards/.cargo/config.toml");
    let settings = settings.split("\n[target.").skip(1);
    let settings: BTreeSet<_> = settings
        .map(|rest| rest.split(']').next().unwrap())
        .collect();
    assert_eq!(settings, boards);
    let guide = read("src/guide/boards.md");
    let measured = between(&guide, "| target, in QEMU |", "\n\n");
    assert_eq!(targets(measured), boards);

    let apple = read("ci/apple.sh");
    let apple = between(&apple, "for architecture in ", ";").split(' ');
    let apple: Vec<_> = apple.map(|it| format!("{it}-apple-darwin")).collect();
    assert_eq!(
        targets(&rows("ci/apple.sh")),
        apple.iter().map(String::as_str).collect()
    );

    let windows = read("ci/windows.sh");
    assert_eq!(targets(&rows("ci/windows.sh")), targets(&windows));

    // `cross` has no image for this target, but one for glibc on the same processor.
    let linux = rows("ci/cross.sh");
    let mut linux = targets(&linux);
    assert!(linux.remove("arm-unknown-linux-musleabihf"));
    linux.insert("arm-unknown-linux-gnueabihf");
    assert_eq!(targets(&read("Cross.toml")), linux);

    let files: BTreeSet<_> = ARCHITECTURES.iter().map(|it| it.file).collect();
    let named = table.split("`asm/").skip(1);
    let named: BTreeSet<_> = named
        .map(|rest| rest.split(".S`").next().unwrap())
        .collect();
    assert_eq!(named, files);
}
