//! Which agent is to hold which share: a pure function of agents, shares and who holds them now.
//!
//! Rendezvous hashing with weights and bounded load. Promises, for agents that take more:
//! - nobody holds more than its fair share plus one;
//! - among agents of one weight, one more moves at most its fair share and one, and one less moves only what it held;
//! - a share that is hot alone has an agent to itself, where there are enough of them;
//! - where there are fewer shares than agents, those of the greatest weight get them;
//! - the same input gives the same answer.

use std::collections::BTreeMap;

/// An agent.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its node.
    pub node: &'a str,
    /// How much it is to hold, in proportion to the others; 0: nothing, and what it holds goes to others.
    pub weight: u32,
    /// It may be given more than it holds.
    pub takes: bool,
}

/// A share.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Its name.
    pub name: &'a str,
    /// Who holds it: an index of the candidates.
    pub holder: Option<usize>,
    /// It makes as much work as many others together.
    pub is_hot: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Only what nobody holds is given out.
    Place,
    /// What one holds too many is given to others as well.
    Balance,
}

/// Up to so many agents, each share is tried with each of them; beyond that, with groups of them first.
const FLAT: usize = 256;

/// Groups, by a hash of the agent's name: about the root of the most agents there can be.
const GROUPS: usize = 128;

/// Shares with an agent of their own; more than that are no exception.
const MOST_HOT: usize = 64;

/// An agent while shares are given out.
struct Place {
    hash: u64,
    weight: f64,
    group: usize,
    takes: bool,
    /// It holds a hot share, and is to hold nothing else.
    is_taken: bool,
    /// The whole part of its fair share, and the most that it may hold.
    fair: usize,
    most: usize,
    held: usize,
}

/// Agents with room.
struct Group {
    hash: u64,
    weight: f64,
    places: Vec<usize>,
    /// How many of them have room up to their fair share, and up to the most.
    below_fair: usize,
    below_most: usize,
}

struct Spread<'a> {
    pieces: &'a [Piece<'a>],
    hashes: Vec<u64>,
    places: Vec<Place>,
    groups: Vec<Group>,
    is_uniform: bool,
    holders: Vec<Option<usize>>,
}

/// Who is to hold each piece: an index of the agents; `None` where nobody can. `most`: what one agent can hold.
pub fn spread(
    agents: &[Candidate<'_>],
    pieces: &[Piece<'_>],
    most: usize,
    effort: Effort,
) -> Vec<Option<usize>> {
    let mut spread = Spread::new(agents, pieces);
    spread.keep(agents);
    spread.separate_hot(effort);
    spread.bound(most);
    if effort == Effort::Balance {
        spread.give_up();
    }
    for weight in spread.tiers() {
        spread.group(weight);
        spread.place();
    }
    spread.holders
}

// === impl Spread ===

impl<'a> Spread<'a> {
    fn new(agents: &[Candidate<'_>], pieces: &'a [Piece<'a>]) -> Self {
        let groups = if agents.len() > FLAT { GROUPS } else { 1 };
        let place = |agent: &Candidate<'_>| {
            let hash = hash_of(agent.node);
            Place {
                hash,
                weight: f64::from(agent.weight),
                group: (mix(hash) % groups as u64) as usize,
                takes: agent.takes && agent.weight > 0,
                is_taken: false,
                fair: 0,
                most: 0,
                held: 0,
            }
        };
        Self {
            pieces,
            hashes: pieces.iter().map(|piece| hash_of(piece.name)).collect(),
            places: agents.iter().map(place).collect(),
            groups: (0..groups)
                .map(|number| Group {
                    hash: mix(number as u64 + 1),
                    weight: 0.0,
                    places: Vec::new(),
                    below_fair: 0,
                    below_most: 0,
                })
                .collect(),
            is_uniform: agents.windows(2).all(|two| matches!(two, [a, b] if a.weight == b.weight)),
            holders: vec![None; pieces.len()],
        }
    }

    fn keep(&mut self, agents: &[Candidate<'_>]) {
        for (holder, piece) in self.holders.iter_mut().zip(self.pieces) {
            *holder = piece.holder.filter(|at| agents.get(*at).is_some_and(|agent| agent.weight > 0));
        }
    }

    /// Gives each hot piece an agent of its own, if that leaves half of the agents to the rest.
    fn separate_hot(&mut self, effort: Effort) {
        let hot: Vec<usize> = (0..self.pieces.len()).filter(|at| self.pieces[*at].is_hot).collect();
        let takers = self.places.iter().filter(|place| place.takes).count();
        if hot.is_empty() || hot.len() > MOST_HOT || hot.len() * 2 > takers {
            return;
        }
        let mut homeless = Vec::new();
        for at in hot {
            match self.holders[at].filter(|holder| !self.places[*holder].is_taken) {
                Some(holder) => self.places[holder].is_taken = true,
                None if self.holders[at].is_none() || effort == Effort::Balance => homeless.push(at),
                None => {}
            }
        }
        for at in homeless {
            let free = (0..self.places.len()).filter(|p| self.places[*p].takes && !self.places[*p].is_taken);
            let best = free.max_by(|a, b| self.score(at, *a).total_cmp(&self.score(at, *b)));
            self.holders[at] = best;
            if let Some(best) = best {
                self.places[best].is_taken = true;
            }
        }
        if effort == Effort::Balance {
            for at in 0..self.pieces.len() {
                let neighbour = !self.pieces[at].is_hot
                    && self.holders[at].is_some_and(|holder| self.places[holder].is_taken);
                if neighbour {
                    self.holders[at] = None;
                }
            }
        }
    }

    /// A piece that is hot and has its agent is out of the count.
    fn is_counted(&self, at: usize) -> bool {
        !self.pieces[at].is_hot || self.holders[at].is_none_or(|holder| !self.places[holder].is_taken)
    }

    /// Counts what each holds, and what it may.
    fn bound(&mut self, most: usize) {
        let counted = (0..self.pieces.len()).filter(|at| self.is_counted(*at)).count();
        for at in 0..self.pieces.len() {
            if let (Some(holder), true) = (self.holders[at], self.is_counted(at)) {
                self.places[holder].held += 1;
            }
        }
        let mut rest = counted;
        // First those that take nothing more: what they do not hold is for the others.
        for takes in [false, true] {
            let counts = |place: &&Place| !place.is_taken && (place.takes || !takes);
            let all: f64 = self.places.iter().filter(counts).map(|place| place.weight).sum();
            let before = rest;
            for place in self.places.iter_mut().filter(|place| !place.is_taken && place.takes == takes) {
                // Rounded down, and with it what rounding errors could add.
                let fair = (before as f64 * place.weight / all.max(1.0) + 1e-9).floor() as usize;
                (place.fair, place.most) = (fair.min(most), (fair + 1).min(most));
                if !place.takes {
                    (place.fair, place.most) = (place.fair.min(place.held), place.most.min(place.held));
                }
                if place.weight == 0.0 {
                    (place.fair, place.most) = (0, 0);
                }
                if !takes {
                    rest = rest.saturating_sub(place.most);
                }
            }
        }
    }

    /// The weights that get something one after the other; all at once where there is enough for all.
    fn tiers(&self) -> Vec<Option<f64>> {
        let takers = || self.places.iter().filter(|place| place.takes && !place.is_taken);
        if self.is_uniform || takers().any(|place| place.fair > 0) {
            return vec![None];
        }
        let mut weights: Vec<f64> = takers().map(|place| place.weight).collect();
        weights.sort_by(|a, b| b.total_cmp(a));
        weights.dedup();
        weights.into_iter().map(Some).collect()
    }

    /// Takes away what one holds above its bound, and as much more as those below their fair share need.
    fn give_up(&mut self) {
        let mut held: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut homeless = 0;
        for at in 0..self.pieces.len() {
            match self.holders[at] {
                Some(holder) if self.is_counted(at) && !self.places[holder].is_taken => {
                    if self.places[holder].held > self.places[holder].fair {
                        held.entry(holder).or_default().push(at);
                    }
                }
                Some(_) => {}
                None => homeless += 1,
            }
        }
        // Those that hang least on their holder go first.
        let mut spare = Vec::new();
        let mut given_up = 0;
        for (holder, mut pieces) in held {
            pieces.sort_by(|a, b| self.score(*a, holder).total_cmp(&self.score(*b, holder)).then(a.cmp(b)));
            let place = &self.places[holder];
            let must = place.held.saturating_sub(place.most);
            let may = place.held.saturating_sub(place.fair);
            for (number, at) in pieces.into_iter().take(may).enumerate() {
                if number < must {
                    self.holders[at] = None;
                    self.places[holder].held -= 1;
                    given_up += 1;
                } else {
                    spare.push((self.score(at, holder), at, holder));
                }
            }
        }
        let needed: usize = self.places.iter().map(|place| place.fair.saturating_sub(place.held)).sum();
        spare.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (_, at, holder) in spare.into_iter().take(needed.saturating_sub(homeless + given_up)) {
            self.holders[at] = None;
            self.places[holder].held -= 1;
        }
    }

    /// Groups the agents of a weight, or all.
    fn group(&mut self, weight: Option<f64>) {
        for group in &mut self.groups {
            group.places.clear();
            (group.weight, group.below_fair, group.below_most) = (0.0, 0, 0);
        }
        for (at, place) in self.places.iter().enumerate() {
            if weight.is_some_and(|weight| weight != place.weight) {
                continue;
            }
            if let Some(group) = self.groups.get_mut(place.group) {
                group.weight += place.weight;
                if place.held < place.most {
                    group.places.push(at);
                    group.below_most += 1;
                    group.below_fair += usize::from(place.held < place.fair);
                }
            }
        }
    }

    /// Gives out what has no holder: first of all nobody is to be left below its fair share.
    fn place(&mut self) {
        let homeless: Vec<usize> = (0..self.pieces.len()).filter(|at| self.holders[*at].is_none()).collect();
        let needed: usize = self.places.iter().map(|place| place.fair.saturating_sub(place.held)).sum();
        let mut slack = homeless.len().saturating_sub(needed);
        for at in homeless {
            let Some(best) = self.best(at, slack == 0).or_else(|| self.best(at, false)) else { return };
            self.holders[at] = Some(best);
            let place = &mut self.places[best];
            place.held += 1;
            let group = &mut self.groups[place.group];
            if place.held > place.fair {
                slack = slack.saturating_sub(1);
            } else if place.held == place.fair {
                group.below_fair -= 1;
            }
            if place.held == place.most {
                group.below_most -= 1;
            }
        }
    }

    /// The agent with the greatest score for a piece, of the group with the greatest one.
    fn best(&self, at: usize, below_fair: bool) -> Option<usize> {
        let hash = self.hashes[at];
        let has_room = |group: &&Group| if below_fair { group.below_fair > 0 } else { group.below_most > 0 };
        let group = match self.groups.as_slice() {
            [only] => Some(only).filter(has_room),
            groups => {
                let score = |group: &Group| weighted(pair(hash, group.hash), group.weight);
                let with = groups.iter().filter(has_room).map(|group| (score(group), group));
                with.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, group)| group)
            }
        }?;
        let with_room = group.places.iter().copied().filter(|at| {
            let place = &self.places[*at];
            place.held < if below_fair { place.fair } else { place.most }
        });
        if self.is_uniform {
            return with_room.max_by_key(|at| pair(hash, self.places[*at].hash));
        }
        with_room.map(|p| (self.score(at, p), p)).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, place)| place)
    }

    fn score(&self, piece: usize, place: usize) -> f64 {
        let place = &self.places[place];
        weighted(pair(self.hashes[piece], place.hash), place.weight)
    }
}

/// Weighted rendezvous hashing (Schindelhauer, Schomaker 2005): `-w / ln(u)`.
fn weighted(hash: u64, weight: f64) -> f64 {
    // In (0, 1): 53 bits are what an f64 holds.
    let drawn = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -weight / drawn.ln()
}

fn pair(piece: u64, agent: u64) -> u64 {
    mix(piece ^ agent.rotate_left(32))
}

/// FNV-1a, mixed once more because names of nodes differ in their last letters alone.
fn hash_of(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(hash)
}

/// The finalizer of MurmurHash3.
fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests;
