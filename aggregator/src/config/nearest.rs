//! What was perhaps meant by a name that nobody knows.

/// The known name that is at most two edits away, ignoring case; the nearest, of several.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name: Vec<char> = name.to_lowercase().chars().take(64).collect();
    known
        .iter()
        .map(|known| (distance(&name, &known.to_lowercase().chars().collect::<Vec<_>>()), *known))
        // Of a short name, little would be left after two edits.
        .filter(|(distance, known)| {
            *distance <= 2 && *distance < known.len().min(name.len()).div_ceil(2).max(1)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// How many characters are to be added, dropped, changed or swapped with the next to make one of the other.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let mut best = (last[j + 1] + 1).min(row[j] + 1).min(last[j] + usize::from(l != r));
            if i > 0 && j > 0 && left[i - 1] == *r && right[j - 1] == *l {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}
