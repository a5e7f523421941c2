//! Which segments there are, and how far each file is indexed: what the indexer changes and questions look at.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::builder::Builder;
use super::stored::{Meta, Segments};

/// All segments. Clones share them.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Directory(Arc<RwLock<State>>);

/// What there is now.
#[derive(Debug, Default)]
pub(in super::super) struct State {
    /// The segment that grows.
    pub(in super::super) growing: Option<Builder>,
    /// Those that are full, and not known to be in their files yet, oldest first. Two at most, and one that is made anew.
    pub(in super::super) sealed: Vec<Arc<Builder>>,
    /// Those in files, with the file's generation.
    pub(in super::super) stored: Vec<(u64, Meta)>,
    /// Where a segment in a file cannot be read, until it is made anew. As many as there are in files at most.
    pub(in super::super) damaged: Vec<Span>,
    /// Up to which position a file is indexed, by its generation.
    pub(in super::super) covered: HashMap<u64, u64>,
}

/// Positions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Span {
    pub(in super::super) generation: u64,
    pub(in super::super) first: u64,
    pub(in super::super) last: u64,
}

// === impl State ===

impl State {
    /// Whether a segment in memory is damaged in its file.
    pub(in super::super) fn is_damaged(&self, sealed: &Builder) -> bool {
        self.damaged.iter().any(|span| (span.generation, span.first) == (sealed.generation, sealed.first))
    }

    /// Where records are to be looked at themselves: what is damaged and not in memory either.
    pub(in super::super) fn unindexed(&self) -> Vec<Span> {
        let is_in_memory = |span: &Span| {
            self.sealed
                .iter()
                .any(|sealed| (sealed.generation, sealed.first) == (span.generation, span.first))
        };
        self.damaged.iter().filter(|span| !is_in_memory(span)).copied().collect()
    }
}

// === impl Directory ===

impl Directory {
    pub(in super::super) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(in super::super) fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a file, with the segments that it has, and those that it should have.
    pub(in super::super) fn add(&self, generation: u64, covered: u64, segments: &Segments) {
        self.write(|state| {
            state.covered.insert(generation, covered);
            state.stored.extend(segments.metas.iter().map(|meta| (generation, *meta)));
            let holes = segments.holes.iter();
            state.damaged.extend(holes.map(|(first, last)| Span { generation, first: *first, last: *last }));
        });
    }

    /// A segment cannot be read: its records are looked at themselves until it is made anew.
    pub(in super::super) fn damage(&self, span: Span) {
        self.write(|state| {
            state
                .stored
                .retain(|(generation, meta)| (*generation, meta.first) != (span.generation, span.first));
            if !state.damaged.contains(&span) {
                state.damaged.push(span);
            }
        });
    }

    /// Forgets all files but these.
    pub(in super::super) fn keep(&self, generations: &[u64]) {
        self.write(|state| {
            let is_kept = |generation: &u64| generations.contains(generation);
            state.growing.take_if(|growing| !is_kept(&growing.generation));
            state.sealed.retain(|sealed| is_kept(&sealed.generation));
            state.stored.retain(|(generation, _)| is_kept(generation));
            state.damaged.retain(|span| is_kept(&span.generation));
            state.covered.retain(|generation, _| is_kept(generation));
        });
    }

    /// Up to which position a file is indexed; `None`: it is not there.
    pub(in super::super) fn covered(&self, generation: u64) -> Option<u64> {
        self.read(|state| state.covered.get(&generation).copied())
    }
}
