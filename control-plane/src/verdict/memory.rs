//! Verdicts that were given, by what they were given on. Bounded: the one that was not asked for longest goes first.

use std::collections::HashMap;

use super::{question::Fingerprint, words::Verdict};

/// How many are remembered.
const MOST: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Memory {
    verdicts: HashMap<Fingerprint, (Verdict, u64)>,
    asked: u64,
}

impl Memory {
    /// What was said, if it is remembered.
    pub(super) fn recall(&mut self, of: &Fingerprint) -> Option<Verdict> {
        self.asked += 1;
        let (verdict, used) = self.verdicts.get_mut(of)?;
        *used = self.asked;
        Some(verdict.clone())
    }

    /// Remembers what was said.
    pub(super) fn keep(&mut self, of: Fingerprint, verdict: Verdict) {
        self.asked += 1;
        if self.verdicts.len() >= MOST && !self.verdicts.contains_key(&of) {
            let oldest = self.verdicts.iter().min_by_key(|(_, (_, used))| *used).map(|(of, _)| *of);
            oldest.map(|oldest| self.verdicts.remove(&oldest));
        }
        self.verdicts.insert(of, (verdict, self.asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: usize) -> Fingerprint {
        let mut of = [0; 32];
        of[..8].copy_from_slice(&number.to_le_bytes());
        of
    }

    #[test]
    fn who_was_not_asked_for_longest_is_forgotten_first() {
        let mut memory = Memory::default();
        for number in 0..MOST {
            memory.keep(of(number), Verdict::Taken);
        }
        assert_eq!(memory.recall(&of(0)), Some(Verdict::Taken));
        memory.keep(of(MOST), Verdict::Taken);
        assert_eq!(memory.verdicts.len(), MOST);
        assert_eq!((memory.recall(&of(0)), memory.recall(&of(1))), (Some(Verdict::Taken), None));
    }
}
