//! Making a failing list of steps short.
//!
//! Invariant: what comes back fails as what went in did, and leaving out any one more of it would not.

/// The delta debugging of Andreas Zeller and Ralf Hildebrandt, "Simplifying and Isolating
/// Failure-Inducing Input", IEEE Transactions on Software Engineering 28(2), 2002 (their *ddmin*, in
/// its form that only leaves out): a part of `steps` that still `fails`, from which no single step can
/// be left out. Comes back unchanged if `steps` does not fail at all.
///
/// ```
/// let steps: Vec<u32> = (0..100).collect();
/// let short = esker_testkit::minimize(&steps, |steps| steps.contains(&7) && steps.contains(&80));
/// assert_eq!(short, [7, 80]);
/// ```
pub fn minimize<T: Clone>(steps: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut steps = steps.to_vec();
    if !fails(&steps) {
        return steps;
    }
    let mut piece = steps.len().div_ceil(2);
    while piece > 0 && !steps.is_empty() {
        let mut shortened = false;
        let mut begin = 0;
        while begin < steps.len() {
            let end = (begin + piece).min(steps.len());
            let rest = [&steps[..begin], &steps[end..]].concat();
            if fails(&rest) {
                steps = rest;
                shortened = true;
            } else {
                begin = end;
            }
        }
        // Once single steps are all needed, so is the whole.
        piece = match piece {
            1 if shortened => 1,
            _ => piece / 2,
        };
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fail_is_left_alone() {
        assert_eq!(minimize(&[1, 2, 3], |_| false), [1, 2, 3]);
        assert!(minimize(&[1, 2, 3], |_| true).is_empty());
        assert!(minimize::<u8>(&[], |_| true).is_empty());
    }

    #[test]
    fn no_single_step_can_be_left_out_of_the_result() {
        // Fails with an even number of even ones, two at least: single removals alone get stuck.
        let fails = |steps: &[u32]| {
            let even = steps.iter().filter(|step| *step % 2 == 0).count();
            even >= 2 && even % 2 == 0
        };
        for length in 4..40 {
            let short = minimize(&(0..length / 4 * 4).collect::<Vec<_>>(), fails);
            assert!(fails(&short));
            for index in 0..short.len() {
                let mut shorter = short.clone();
                shorter.remove(index);
                assert!(!fails(&shorter), "{short:?} can be shorter");
            }
        }
    }
}
