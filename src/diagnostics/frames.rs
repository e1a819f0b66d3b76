//! The names of the frames in a backtrace, as a printed snapshot shows them.

use core::{
    fmt::{self, Write as _},
    mem,
};
use std::{backtrace::Backtrace, collections::HashMap, sync::Arc};

/// How many frames of each greenlet a snapshot shows, unless all are asked for.
const FRAMES_SHOWN: usize = 3;

/// The printed frames of greenlets, computed once for all that share a backtrace.
pub(super) struct Frames {
    /// Whether all frames are shown, with file and line.
    all: bool,
    lines: HashMap<*const Backtrace, Vec<String>>,
}

impl Frames {
    pub(super) fn new(all: bool) -> Self {
        Self {
            all,
            lines: HashMap::new(),
        }
    }

    /// Returns the lines to print for a backtrace.
    pub(super) fn of(&mut self, backtrace: &Arc<Backtrace>) -> &[String] {
        self.lines
            .entry(Arc::as_ptr(backtrace))
            .or_insert_with(|| OwnFrames::of(backtrace, self.all))
    }
}

/// Collects the names of frames from the text of a backtrace, down to the bottom of the greenlet's own stack. It
/// leaves out frames of this crate and of std. If `all` is set it adds file and line.
///
/// A `Backtrace` gives its frames only as text, and takes time to write each. So writing fails after the last frame
/// that is needed.
struct OwnFrames {
    all: bool,
    frames: Vec<String>,
    /// `true` if the last complete line has begun the last frame.
    is_at_frame: bool,
    /// The text of the line that is not complete yet.
    line: String,
}

impl OwnFrames {
    fn of(backtrace: &Backtrace, all: bool) -> Vec<String> {
        let mut own = Self {
            all,
            frames: Vec::new(),
            is_at_frame: false,
            line: String::new(),
        };
        // It fails after the last frame that is needed, and for no other reason.
        let _ = write!(own, "{backtrace}");
        own.frames
    }

    fn end_of_line(&mut self) -> fmt::Result {
        const INTERNAL: [&str; 5] = ["greenlet::", "std::", "core::", "alloc::", "__rust_try"];
        let line = self.line.trim();
        let follows_frame = mem::replace(&mut self.is_at_frame, false);
        let name = match line.split_once(": ") {
            Some((number, name)) if number.parse::<u32>().is_ok() => name,
            _ => {
                if let (true, true, Some(frame)) = (self.all, follows_frame, self.frames.last_mut())
                {
                    frame.push(' ');
                    frame.push_str(line);
                }
                return Ok(());
            }
        };
        if name.starts_with("greenlet::tree::body::start") {
            return Err(fmt::Error);
        }
        let path = name
            .trim_start_matches(['<', '&'])
            .trim_start_matches("mut ")
            .trim_start_matches("dyn ");
        // The bottom frame of the inspecting stack is a symbol of the switch core.
        let is_core = path.starts_with("greenlet_") && path.ends_with("_entry");
        if is_core || INTERNAL.iter().any(|prefix| path.starts_with(prefix)) {
            return Ok(());
        }
        self.frames.push(name.to_owned());
        self.is_at_frame = true;
        if !self.all && self.frames.len() == FRAMES_SHOWN {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

impl fmt::Write for OwnFrames {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            self.line.push_str(piece);
            if piece.ends_with('\n') {
                self.end_of_line()?;
                self.line.clear();
            }
        }
        Ok(())
    }
}
