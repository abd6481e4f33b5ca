//! Which endpoint of a destination gets the next request.

use std::net::SocketAddr;

use rand::RngExt;

use super::upstream::Choices;
use crate::{config::model::LoadBalancer, mesh::model::Endpoint};

/// Draws that a retry makes to find an endpoint that was not tried yet (Istio's setting for Envoy).
const RETRY_DRAWS: usize = 5;

/// The index of an endpoint; `None` where there is none. For `PASSTHROUGH` see the caller: it asks no
/// endpoint at all.
pub fn pick(choices: &Choices, tried: &[SocketAddr], rng: &mut impl rand::Rng) -> Option<usize> {
    let mut index = draw(choices, rng)?;
    if !tried.is_empty() {
        for _ in 1..RETRY_DRAWS {
            if !tried.contains(&choices.servers[index].address) {
                break;
            }
            index = draw(choices, rng)?;
        }
        // Where only few are left, no draw need find them; a retry must not fail for that.
        let servers = &choices.servers;
        let is_fresh = |index: &usize| !tried.contains(&servers[*index].address);
        if !is_fresh(&index) {
            let mut others = (index..servers.len()).chain(0..index);
            index = others.find(is_fresh).unwrap_or(index);
        }
    }
    Some(index)
}

fn draw(choices: &Choices, rng: &mut impl rand::Rng) -> Option<usize> {
    match choices.servers.len() {
        0 => None,
        1 => Some(0),
        count => Some(match choices.destination.load_balancer {
            LoadBalancer::RoundRobin if choices.even => {
                let turn = choices.next.get();
                choices.next.set(turn.wrapping_add(1));
                turn % count
            }
            LoadBalancer::LeastRequest => {
                let (one, other) = (random(choices, rng), random(choices, rng));
                let load = |index: usize| choices.servers[index].in_flight();
                if load(other) < load(one) { other } else { one }
            }
            LoadBalancer::RoundRobin | LoadBalancer::Random | LoadBalancer::Passthrough => {
                random(choices, rng)
            }
        }),
    }
}

fn random(choices: &Choices, rng: &mut impl rand::Rng) -> usize {
    let endpoints = &choices.destination.endpoints;
    if choices.even {
        return rng.random_range(0..endpoints.len());
    }
    let weight = |endpoint: &Endpoint| u64::from(endpoint.weight);
    let total: u64 = endpoints.iter().map(weight).sum();
    let mut left = rng.random_range(0..total.max(1));
    endpoints
        .iter()
        .position(|endpoint| {
            let hit = left < weight(endpoint);
            left = left.saturating_sub(weight(endpoint));
            hit
        })
        .unwrap_or(0)
}
