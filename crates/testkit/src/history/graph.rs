//! Graphs of dependencies between transactions, and cycles in them.
//!
//! Invariant: nodes are numbers below the count that the graph was made with; an edge stands once for
//! each kind.

use std::collections::VecDeque;

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Edge {
    /// The other has written over what this one wrote.
    WriteWrite,
    /// The other has read what this one wrote.
    WriteRead,
    /// The other has written over what this one read.
    ReadWrite,
    /// This one had ended before the other began.
    RealTime,
}

#[derive(Debug)]
pub(crate) struct Graph {
    edges: Vec<Vec<(usize, Edge)>>,
}

impl Graph {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            edges: vec![Vec::new(); nodes],
        }
    }

    pub(crate) fn add(&mut self, from: usize, to: usize, edge: Edge) {
        if from != to && !self.edges[from].contains(&(to, edge)) {
            self.edges[from].push((to, edge));
        }
    }

    /// The shortest path from `from` to `to` over edges of `kinds`, both ends included.
    fn path(&self, from: usize, to: usize, kinds: &[Edge]) -> Option<Vec<usize>> {
        let mut before = vec![usize::MAX; self.edges.len()];
        let mut queue = VecDeque::from([from]);
        before[from] = from;
        while let Some(node) = queue.pop_front() {
            if node == to {
                let mut path = vec![to];
                let mut at = to;
                while at != from {
                    at = before[at];
                    path.push(at);
                }
                path.reverse();
                return Some(path);
            }
            for &(next, edge) in &self.edges[node] {
                if kinds.contains(&edge) && before[next] == usize::MAX {
                    before[next] = node;
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// A cycle over edges of `kinds` that begins with an edge of kind `first`.
    pub(crate) fn cycle(&self, first: Edge, kinds: &[Edge]) -> Option<Vec<usize>> {
        let components = self.components(kinds, first);
        for (from, edges) in self.edges.iter().enumerate() {
            for &(to, edge) in edges {
                // Only within a strongly connected component is there a way back.
                if edge == first && components[from] == components[to] {
                    let back = self.path(to, from, kinds);
                    if let Some(mut cycle) = back {
                        cycle.insert(0, from);
                        return Some(cycle);
                    }
                }
            }
        }
        None
    }

    /// The strongly connected component of each node over edges of `kinds` and `first` (Tarjan 1972,
    /// without recursion).
    fn components(&self, kinds: &[Edge], first: Edge) -> Vec<usize> {
        let count = self.edges.len();
        let (mut index, mut low) = (vec![usize::MAX; count], vec![0; count]);
        let mut component = vec![usize::MAX; count];
        let (mut stack, mut next_index) = (Vec::new(), 0);
        for root in 0..count {
            if index[root] != usize::MAX {
                continue;
            }
            let mut calls = vec![(root, 0)];
            while let Some((node, at)) = calls.pop() {
                if at == 0 {
                    index[node] = next_index;
                    low[node] = next_index;
                    next_index += 1;
                    stack.push(node);
                } else {
                    let (child, _) = self.edges[node][at - 1];
                    if component[child] == usize::MAX {
                        low[node] = low[node].min(low[child]);
                    }
                }
                let mut descended = false;
                for (offset, &(child, edge)) in self.edges[node][at..].iter().enumerate() {
                    if !kinds.contains(&edge) && edge != first {
                        continue;
                    }
                    if index[child] == usize::MAX {
                        calls.push((node, at + offset + 1));
                        calls.push((child, 0));
                        descended = true;
                        break;
                    }
                    if component[child] == usize::MAX {
                        low[node] = low[node].min(index[child]);
                    }
                }
                if !descended && low[node] == index[node] {
                    while let Some(member) = stack.pop() {
                        component[member] = node;
                        if member == node {
                            break;
                        }
                    }
                }
            }
        }
        component
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_found_where_there_are_any() {
        let mut graph = Graph::new(6);
        for (from, to) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
            graph.add(from, to, Edge::WriteWrite);
        }
        let writes = [Edge::WriteWrite];
        assert_eq!(graph.cycle(Edge::WriteWrite, &writes), None);
        graph.add(3, 1, Edge::ReadWrite);
        assert_eq!(graph.cycle(Edge::WriteWrite, &writes), None);
        assert_eq!(
            graph.cycle(Edge::ReadWrite, &writes),
            Some(vec![3, 1, 2, 3])
        );
        graph.add(3, 0, Edge::WriteWrite);
        assert_eq!(
            graph.cycle(Edge::WriteWrite, &writes),
            Some(vec![0, 1, 2, 3, 0])
        );
    }
}
