//! Faults that a rule asks for.

use http::StatusCode;
use rand::{Rng, RngExt};

use super::{failure::Failure, worker::Worker};
use crate::{
    config::model::HttpFault,
    telemetry::{RequestRecord, ResponseFlags},
};

/// Delays the request, refuses it, both or neither: the two are drawn independently.
pub async fn inject(
    worker: &Worker,
    record: &mut RequestRecord,
    fault: &HttpFault,
) -> Result<(), Failure> {
    let draw = |percentage| worker.with_rng(|rng| hits(percentage, rng));
    if let Some(delay) = &fault.delay
        && draw(delay.percentage)
    {
        record.flag(ResponseFlags::DI);
        tokio::time::sleep(delay.duration).await;
    }
    if let Some(abort) = &fault.abort
        && draw(abort.percentage)
    {
        let status = StatusCode::from_u16(abort.status);
        return Err(Failure::FaultAbort(
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        ));
    }
    Ok(())
}

/// Whether a draw hits; 0 never does and 100 always.
fn hits(percentage: f64, rng: &mut impl Rng) -> bool {
    rng.random_range(0.0..100.0) < percentage
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::hits;

    #[test]
    fn a_percentage_is_hit_as_often_as_it_says() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut share = |percentage| (0..10_000).filter(|_| hits(percentage, &mut rng)).count();
        assert_eq!(share(0.0), 0);
        assert_eq!(share(100.0), 10_000);
        assert!((2_300..2_700).contains(&share(25.0)));
    }
}
