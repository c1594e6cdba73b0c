//! Did you mean: the known word that is nearest to a misspelt one.

/// The nearest of the known words, if it is near enough to have been meant: another case, or at most two letters wrong.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No field has so long a name, and the work grows with the length.
    if word.len() > 64 {
        return None;
    }
    let bound = if word.chars().count() < 5 { 1 } else { 2 };
    let lower = word.to_lowercase();
    let distances = known.into_iter().map(|near| (distance(&lower, &near.to_lowercase()), near));
    distances.filter(|(distance, _)| *distance <= bound).min_by_key(|(distance, _)| *distance).map(|(_, near)| near)
}

/// How many letters must be put in, taken out, changed, or swapped with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    let mut last = None;
    for (i, a) in from.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut last_b = None;
        for (j, b) in to.iter().copied().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&row, j) + usize::from(a != b)).min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            if last == Some(b) && last_b == Some(a) {
                best = best.min(at(&before, j.wrapping_sub(1)).saturating_add(1));
            }
            next.push(best);
            last_b = Some(b);
        }
        before = std::mem::replace(&mut row, next);
        last = Some(a);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_meant_if_any_is_near() {
        let known = ["image", "imagePullPolicy", "name", "env"];
        assert_eq!(nearest("imagePulPolicy", known), Some("imagePullPolicy"));
        assert_eq!(nearest("imagepullpolicy", known), Some("imagePullPolicy"));
        assert_eq!(nearest("iamge", known), Some("image"));
        assert_eq!(nearest("nmae", known), Some("name"));
        assert_eq!(nearest("bogus", known), None);
        assert_eq!(nearest("ev", known), Some("env"));
        assert_eq!(nearest("", known), None);
    }
}
