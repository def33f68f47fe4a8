//! Why there is no solution, in words: the solver's graph of what is in the way, each end of it with the way from what was
//! asked for.

use super::{Reason, problem::Provider};
use resolvo::{
    Interner, Requirement, SolvableId, VersionSetId,
    conflict::{ConflictCause, ConflictEdge, ConflictGraph, ConflictNode},
};
use std::collections::{HashMap, VecDeque};

/// How many reasons are told: more are mostly the same once more.
const REASONS_MAX: usize = 5;
/// How many steps of a way are told.
const STEPS_MAX: usize = 12;

/// What is in the way, a reason after the other.
pub(super) fn explain(provider: &Provider<'_, '_>, graph: &ConflictGraph<SolvableId>) -> Vec<Reason> {
    let ways = Ways::new(provider, graph);
    let mut reasons: Vec<Reason> = Vec::new();
    let shown = |solvable: SolvableId| provider.display_solvable(solvable).to_string();
    for edge in graph.graph.edge_indices() {
        let (Some((from, to)), Some(weight)) = (graph.graph.edge_endpoints(edge), graph.graph.edge_weight(edge)) else {
            continue;
        };
        let (from, to) = (from.index(), to.index());
        let reason = match (weight, ways.solvable(to)) {
            (ConflictEdge::Requires(requirement), None) if ways.is_unresolved(to) => {
                let wanted = ways.wanted(requirement);
                ways.reason(format!("no package is `{wanted}`{}", provider.there(&wanted)), &[from])
            }
            (ConflictEdge::Conflict(ConflictCause::Constrains(set)), Some(other)) => {
                let text = provider.display_version_set(*set).to_string();
                match ways.solvable(from) {
                    Some(one) => ways.reason(
                        format!("{} and {} cannot both be there (`{text}`)", shown(one), shown(other)),
                        &[from, to],
                    ),
                    None => ways.reason(format!("{} is not to be there", shown(other)), &[to]),
                }
            }
            (ConflictEdge::Conflict(ConflictCause::ForbidMultipleInstances), Some(other)) => {
                let Some(one) = ways.solvable(from) else { continue };
                ways.reason(format!("{} and {} are needed at once", shown(one), shown(other)), &[from, to])
            }
            (ConflictEdge::Conflict(ConflictCause::Excluded), None) => {
                let (Some(one), Some(ConflictNode::Excluded(why))) = (ways.solvable(from), ways.nodes.get(to)) else {
                    continue;
                };
                ways.reason(format!("{} cannot be used: {}", shown(one), provider.display_string(*why)), &[from])
            }
            _ => continue,
        };
        if reasons.iter().all(|it| (&it.what, &it.ways) != (&reason.what, &reason.ways)) {
            reasons.push(reason);
        }
    }
    let more = reasons.len().saturating_sub(REASONS_MAX);
    reasons.truncate(REASONS_MAX);
    if more > 0 {
        reasons.push(Reason { what: format!("and {more} more of the kind"), ..Reason::default() });
    }
    // All of them are of the reasons together: a way may be longer than is told.
    if let Some(first) = reasons.first_mut() {
        let there = (0..ways.nodes.len()).filter_map(|node| ways.solvable(node));
        first.names.extend(there.filter_map(|solvable| provider.name_of(solvable)));
        let needs = graph.graph.edge_weights().filter_map(|edge| match edge {
            ConflictEdge::Requires(need) => Some(ways.wanted(need)),
            ConflictEdge::Conflict(_) => None,
        });
        first.names.extend(needs.flat_map(|wanted| provider.named_in(&wanted)));
    }
    reasons
}

/// The shortest way from what was asked for to each package of a graph.
struct Ways<'p, 'u, 'a> {
    provider: &'p Provider<'u, 'a>,
    nodes: Vec<ConflictNode<SolvableId>>,
    /// From which package, by which need.
    before: HashMap<usize, (usize, Requirement)>,
    root: usize,
}

impl<'p, 'u, 'a> Ways<'p, 'u, 'a> {
    fn new(provider: &'p Provider<'u, 'a>, graph: &ConflictGraph<SolvableId>) -> Self {
        let nodes = graph.graph.node_weights().copied().collect();
        let mut edges: HashMap<usize, Vec<(usize, Requirement)>> = HashMap::new();
        for edge in graph.graph.edge_indices() {
            let ends = graph.graph.edge_endpoints(edge);
            if let (Some((from, to)), Some(ConflictEdge::Requires(need))) = (ends, graph.graph.edge_weight(edge)) {
                edges.entry(from.index()).or_default().push((to.index(), *need));
            }
        }
        let root = graph.root_node.index();
        let (mut before, mut queue) = (HashMap::new(), VecDeque::from([root]));
        while let Some(from) = queue.pop_front() {
            for (to, need) in edges.get(&from).into_iter().flatten() {
                if *to != root && !before.contains_key(to) {
                    before.insert(*to, (from, *need));
                    queue.push_back(*to);
                }
            }
        }
        Ways { provider, nodes, before, root }
    }

    fn solvable(&self, node: usize) -> Option<SolvableId> {
        match self.nodes.get(node) {
            Some(ConflictNode::Solvable(solvable)) => Some(*solvable),
            _ => None,
        }
    }

    fn is_unresolved(&self, node: usize) -> bool {
        matches!(self.nodes.get(node), Some(ConflictNode::UnresolvedDependency))
    }

    /// A need as a package writes it.
    fn wanted(&self, requirement: &Requirement) -> String {
        let sets: Vec<VersionSetId> = match requirement {
            Requirement::Single(set) => vec![*set],
            Requirement::Union(union) => self.provider.version_sets_in_union(*union).collect(),
        };
        let mut texts: Vec<String> = Vec::new();
        for set in sets {
            let text = self.provider.written(set);
            // Several packages can provide the same.
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts.join(" | ")
    }

    /// A reason with the ways to these packages.
    fn reason(&self, what: String, nodes: &[usize]) -> Reason {
        let mut reason = Reason { what, ..Reason::default() };
        for node in nodes {
            let (way, asked) = self.way_to(*node);
            reason.ways.extend(way.filter(|way| !reason.ways.contains(way)));
            reason.asked.extend(asked.filter(|name| !reason.asked.contains(name)));
        }
        reason
    }

    /// How it comes that a package is needed: a line that begins with what was asked for, and the name of that.
    fn way_to(&self, node: usize) -> (Option<String>, Option<String>) {
        let mut steps = Vec::new();
        let mut asked = None;
        let mut at = node;
        while let Some((before, need)) = self.before.get(&at).filter(|_| steps.len() < STEPS_MAX) {
            let Some(solvable) = self.solvable(at) else { break };
            let name = self.provider.display_solvable(solvable).to_string();
            steps.push(if *before == self.root {
                asked = self.provider.asked_for(need);
                format!("{name} {}", self.provider.reason(need))
            } else {
                format!("needs {name} (`{}`)", self.wanted(need))
            });
            at = *before;
        }
        let Some(mut way) = steps.pop() else { return (None, None) };
        for (number, step) in steps.iter().rev().enumerate() {
            way.push_str(if number == 0 { "; it " } else { ", which " });
            way.push_str(step);
        }
        (Some(way), asked)
    }
}
