//! The switch cores of macOS have the bytes of the ELF cores, which are tested and proved, and unwind tables
//! with the same meaning, in object files and in linked programs. Nothing here runs them.
//!
//! `ci/apple.sh` runs this, with zig (`GREENLET_ZIG`, see `ci/install.sh`) and with the programs
//! that it has built (`GREENLET_MACH_O`, paths with colons between).

#![cfg(all(unix, not(miri)))]

use std::{env, fs, ops::Range, path::Path, process::Command};

use object::{Architecture, Object, ObjectSection, ObjectSegment, ObjectSymbol};

use crate::directory::Directory;

const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// Assembles the core, with the text of the switch as a routine `site`, for a system that zig knows.
fn assembled(architecture: &str, system: &str, flags: &[&str]) -> Vec<u8> {
    let directory = Directory::new().unwrap();
    let [source, object] = ["core.S", "core.o"].map(|name| directory.path().join(name));
    let asm = Path::new(env!("CARGO_MANIFEST_DIR")).join("asm");
    let text = format!(
        "#include \"{architecture}.S\"\nFUNCTION SYM(site), 4\n    SWITCH\nEND_FUNCTION SYM(site)\n"
    );
    fs::write(&source, text).unwrap();
    let python = env::var_os("GREENLET_ZIG").expect("see above");
    let status = Command::new(python)
        .args(["-m", "ziglang", "cc", "-target"])
        .arg(format!("{architecture}-{system}"))
        .args(["-DGREENLET_PREFIX=greenlet_", "-c", "-I"])
        .args([asm.as_os_str(), source.as_os_str()])
        .args(flags)
        .arg("-o")
        .arg(&object)
        .status();
    assert!(status.unwrap().success(), "{architecture}-{system}");
    fs::read(&object).unwrap()
}

/// Returns the address of the core's symbol with any prefix.
fn address(file: &object::File<'_>, name: &str) -> Option<u64> {
    let of_core = |symbol: &str| {
        let symbol = symbol.strip_prefix('_').unwrap_or(symbol);
        symbol.starts_with("greenlet_") && symbol.ends_with(&format!("_{name}"))
    };
    let mut found = file.symbols().filter(|it| it.name().is_ok_and(of_core));
    let address = found.next()?.address();
    assert!(found.next().is_none(), "{name}");
    Some(address)
}

/// Returns the range of a routine of the ELF core in its section.
fn extent(file: &object::File<'_>, name: &str) -> Option<Range<usize>> {
    let symbol = file
        .symbols()
        .find(|it| it.name() == Ok(&format!("greenlet_{name}")))?;
    let start = symbol.address() as usize;
    Some(start..start + symbol.size() as usize)
}

/// Returns the section with the core's symbol, its bytes, and the symbol's offset in it.
fn code<'a>(file: &'a object::File<'_>, name: &str) -> (object::Section<'a, 'a>, &'a [u8], usize) {
    let at = address(file, name).unwrap();
    let symbol = file
        .symbols()
        .find(|it| it.address() == at && it.name().unwrap().ends_with(&format!("_{name}")));
    let index = symbol.unwrap().section_index().unwrap();
    let section = file.section_by_index(index).unwrap();
    let data = section.data().unwrap();
    let from = (at - section.address()) as usize;
    (section, data, from)
}

/// Returns `size` bytes from the symbol on, with zeros at relocations.
fn bytes(file: &object::File<'_>, name: &str, size: usize, filled: &[usize]) -> Vec<u8> {
    let (_, data, from) = code(file, name);
    let mut bytes = data[from..from + size].to_vec();
    for place in filled {
        bytes[*place..place + 4].fill(0);
    }
    bytes
}

/// Returns the offsets of the relocations in a routine.
fn filled(file: &object::File<'_>, name: &str, size: usize) -> Vec<usize> {
    let (section, _, from) = code(file, name);
    let places = section.relocations().map(|(place, _)| place as usize);
    places
        .filter(|place| (from..from + size).contains(place))
        .map(|place| place - from)
        .collect()
}

/// A routine's frame description entry (FDE) in `.eh_frame`.
struct Description {
    /// Its offset in the section.
    offset: usize,
    /// The address of the routine.
    start: u64,
    augmentation: String,
    /// Its instructions, and those of its common information entry (CIE).
    instructions: [Vec<u8>; 2],
}

struct Reader<'a>(&'a [u8], usize);

impl Reader<'_> {
    fn number(&mut self, size: usize) -> u64 {
        let mut number = [0; 8];
        number[..size].copy_from_slice(&self.0[self.1..self.1 + size]);
        self.1 += size;
        u64::from_le_bytes(number)
    }

    /// Reads a LEB128 number below 128; there are no others here.
    fn leb(&mut self) -> u8 {
        let number = self.number(1) as u8;
        assert!(number < 0x80);
        number
    }

    /// Returns the rest, without the padding at its end.
    fn rest(&self, end: usize) -> Vec<u8> {
        let mut rest = self.0[self.1..end].to_vec();
        while rest.last() == Some(&0) {
            rest.pop();
        }
        rest
    }
}

/// Returns the entries of `.eh_frame` whose CIE has the augmentation "zR" or "zRS" ("LSB: Exception
/// Frames"). Skips the compiler's, which have others.
fn descriptions(file: &object::File<'_>) -> Vec<Description> {
    let section = file.section_by_name(".eh_frame").expect("unwind tables");
    let data = section.data().unwrap();
    let mut found = Vec::new();
    let mut offset = 0;
    while offset < data.len() {
        let mut reader = Reader(data, offset);
        let length = reader.number(4) as usize;
        if length == 0 {
            break;
        }
        let end = offset + 4 + length;
        let at = reader.1;
        let back = reader.number(4) as usize;
        if back != 0 {
            let mut kind = Reader(data, at - back);
            let kind_end = at - back + 4 + kind.number(4) as usize;
            assert_eq!((kind.number(4), kind.number(1)), (0, 1));
            let mut augmentation = String::new();
            while let letter @ 1.. = kind.number(1) as u8 {
                augmentation.push(letter.into());
            }
            if augmentation == "zR" || augmentation == "zRS" {
                // Alignment factors, return address register, size of the augmentation.
                kind.1 += 3;
                assert_eq!(kind.leb(), 1);
                // The encoding of addresses: relative to their place, 8 bytes or 4 bytes signed.
                let size = match kind.number(1) {
                    0x10 => 8,
                    0x1b => 4,
                    other => panic!("{other:#x}"),
                };
                let place = section.address() + reader.1 as u64;
                let start = reader.number(size);
                let start = place.wrapping_add(if size == 4 {
                    start as i32 as u64
                } else {
                    start
                });
                reader.number(size);
                assert_eq!(reader.leb(), 0);
                found.push(Description {
                    offset,
                    start,
                    augmentation,
                    instructions: [reader.rest(end), kind.rest(kind_end)],
                });
            }
        }
        offset = end;
    }
    found
}

/// Returns the compact encoding that refers to `.eh_frame` (`mach-o/compact_unwind_encoding.h`).
fn see_eh_frame(file: &object::File<'_>) -> u32 {
    match file.architecture() {
        Architecture::X86_64 => 0x0400_0000,
        Architecture::Aarch64 => 0x0300_0000,
        other => panic!("{other:?}"),
    }
}

const MODE: u32 = 0x0f00_0000;

/// Returns the compact encoding of an address in `__unwind_info` (the same header describes the section).
fn compact_encoding(file: &object::File<'_>, address: u64) -> u32 {
    let section = file.section_by_name("__unwind_info").expect("a table");
    let data = section.data().unwrap();
    let long = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
    let short = |at: usize| usize::from(u16::from_le_bytes(data[at..at + 2].try_into().unwrap()));
    let base = file.segments().find(|it| it.name() == Ok(Some("__TEXT")));
    let base = base.expect("code").address();
    let sought = u32::try_from(address - base).unwrap();

    let (common, commons) = (long(4) as usize, long(8));
    let (index, count) = (long(20) as usize, long(24) as usize);
    let before = |at: usize| long(at) <= sought;
    let first = (0..count).map(|number| index + 12 * number);
    let first = first.take_while(|at| before(*at)).last().unwrap();
    let page = long(first + 4) as usize;
    let (entries, count) = (page + short(page + 4), short(page + 6));
    match long(page) {
        2 => {
            let places = (0..count).map(|number| entries + 8 * number);
            long(places.take_while(|at| before(*at)).last().unwrap() + 4)
        }
        3 => {
            let places = (0..count).map(|number| entries + 4 * number);
            let from = long(first);
            let last = places.take_while(|at| from + (long(*at) & 0xff_ffff) <= sought);
            let number = long(last.last().unwrap()) >> 24;
            if number < commons {
                long(common + 4 * number as usize)
            } else {
                long(page + short(page + 8) + 4 * (number - commons) as usize)
            }
        }
        other => panic!("a page of kind {other}"),
    }
}

fn for_each_core(check: impl Fn(&object::File<'_>, &object::File<'_>)) {
    for architecture in ARCHITECTURES {
        for flags in [&[][..], &["-DGREENLET_FP_CONTROL"]] {
            println!("{architecture} {flags:?}");
            let [elf, mach_o] =
                ["linux-musl", "macos"].map(|system| assembled(architecture, system, flags));
            let [elf, mach_o] = [&elf, &mach_o].map(|data| object::File::parse(&**data).unwrap());
            check(&elf, &mach_o);
        }
    }
}

#[test]
#[ignore = "needs zig: ci/apple.sh"]
fn code_has_the_bytes_of_the_elf_core() {
    for_each_core(|elf, mach_o| {
        let mut compared = 0;
        for name in ["entry", "resume", "site"] {
            let Some(extent) = extent(elf, name) else {
                assert_eq!(name, "resume");
                assert_eq!(address(mach_o, name), None);
                continue;
            };
            let mut places = filled(elf, name, extent.len());
            places.extend(filled(mach_o, name, extent.len()));
            // The jumps of SWITCH and of `entry` to `resume`.
            assert!(places.len() <= 4, "{name}: {places:?}");
            let [theirs, ours] = [elf, mach_o].map(|it| bytes(it, name, extent.len(), &places));
            assert_eq!(theirs, ours, "{name}");
            compared += 1;
        }
        assert!(compared >= 2);
        let [theirs, ours] = [elf, mach_o]
            .map(|file| address(file, "entry_pc").unwrap() - address(file, "entry").unwrap());
        assert_eq!(theirs, ours);
    });
}

#[test]
#[ignore = "needs zig: ci/apple.sh"]
fn unwind_tables_have_the_meaning_of_those_of_the_elf_core() {
    for_each_core(|elf, mach_o| {
        let [theirs, ours] = [elf, mach_o].map(descriptions);
        assert_eq!(theirs.len(), ours.len());
        assert!(!ours.is_empty());
        for (theirs, ours) in theirs.iter().zip(&ours) {
            assert!(!theirs.instructions[0].is_empty());
            assert_eq!(theirs.instructions, ours.instructions);
            assert_eq!([&*theirs.augmentation, &ours.augmentation], ["zRS", "zR"]);
        }
        // One entry of 32 bytes for each routine, which refers to `.eh_frame`.
        let compact = mach_o.section_by_name("__compact_unwind").expect("a table");
        let entries = compact.data().unwrap().chunks(32);
        assert_eq!(entries.len(), ours.len());
        for entry in entries {
            let encoding = u32::from_le_bytes(entry[12..16].try_into().unwrap());
            assert_eq!(encoding & MODE, see_eh_frame(mach_o));
        }
    });
}

#[test]
#[ignore = "needs zig and linked programs: ci/apple.sh"]
fn linked_programs_have_the_core_and_its_unwind_table() {
    let programs = env::var("GREENLET_MACH_O").expect("see above");
    for path in programs.split(':') {
        println!("{path}");
        let program = fs::read(path).unwrap();
        let program = object::File::parse(&*program).unwrap();
        let architecture = match program.architecture() {
            Architecture::X86_64 => "x86_64",
            Architecture::Aarch64 => "aarch64",
            other => panic!("{other:?}"),
        };
        let core = assembled(architecture, "linux-musl", &[]);
        let core = object::File::parse(&*core).unwrap();
        let size = |name| extent(&core, name).unwrap().len();

        let [theirs, ours] = [&core, &program].map(|it| bytes(it, "entry", size("entry"), &[]));
        assert_eq!(theirs, ours);
        let switch = bytes(&core, "site", size("site"), &[]);
        let text = program.section_by_name(".text").unwrap();
        let mut code = text.data().unwrap().windows(switch.len());
        assert!(code.any(|window| window == switch), "no switch in line");

        let entry = address(&program, "entry").unwrap();
        let ours = descriptions(&program);
        let ours = ours
            .iter()
            .find(|it| it.start == entry)
            .expect("one for it");
        assert_eq!(descriptions(&core)[0].instructions, ours.instructions);
        let encoding = compact_encoding(&program, entry);
        // The rest of the encoding is the offset of the FDE.
        assert_eq!(encoding, see_eh_frame(&program) | ours.offset as u32);
    }
}
