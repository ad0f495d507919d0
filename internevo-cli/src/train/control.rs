//! Stopping and saving on request: a signal, or InternEvo's stop file. Rank 0 looks, every rank obeys.

use std::path::Path;

use internevo_parallel::{
    ProcessGroups,
    comm::{Buffer, CommError},
};

use super::job::Job;

/// What happens after a step beside the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Write a checkpoint.
    pub save: bool,
    /// End the run after it.
    pub stop: bool,
}

/// Asks for decisions.
#[derive(Debug, Default)]
pub struct Control {
    warned: bool,
}

impl Control {
    /// The decision after `step`. Collective over the world.
    ///
    /// # Errors
    /// A failed world.
    pub fn decide(&mut self, job: &Job<'_>, groups: &ProcessGroups, step: u64) -> Result<Decision, CommError> {
        let mut decision = Decision::default();
        if groups.world.rank() == 0 {
            decision = self.stop_file(Path::new(&job.config.ckpt.stop_file_path), step);
            if job.interrupt.requested() {
                decision = Decision { save: true, stop: true };
            }
        }
        let flags = vec![u8::from(decision.save), u8::from(decision.stop)];
        let flags = groups.world.broadcast(Buffer::U8(flags), 0)?.wait()?.into_u8();
        Ok(Decision { save: flags[0] == 1, stop: flags[1] == 1 })
    }

    /// A file with a step number: positive = save at that step and stop, negative = save and go on.
    fn stop_file(&mut self, path: &Path, step: u64) -> Decision {
        if path.as_os_str().is_empty() {
            return Decision::default();
        }
        let Ok(text) = std::fs::read_to_string(path) else { return Decision::default() };
        match text.trim().parse::<i64>() {
            Ok(wanted) if wanted.unsigned_abs() == step => Decision { save: true, stop: wanted > 0 },
            Ok(_) => Decision::default(),
            Err(_) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(path = %path.display(), "ckpt.stop_file_path does not hold a step number");
                }
                Decision::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_file_acts_at_its_step_only() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("stop");
        let mut control = Control::default();
        assert_eq!(control.stop_file(&path, 5), Decision::default(), "no file");
        std::fs::write(&path, "5\n").expect("write");
        assert_eq!(control.stop_file(&path, 4), Decision::default());
        assert_eq!(control.stop_file(&path, 5), Decision { save: true, stop: true });
        std::fs::write(&path, "-6").expect("write");
        assert_eq!(control.stop_file(&path, 6), Decision { save: true, stop: false });
        std::fs::write(&path, "soon").expect("write");
        assert_eq!(control.stop_file(&path, 6), Decision::default());
        assert!(control.warned);
    }
}
