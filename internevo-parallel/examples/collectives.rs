//! How long collectives take, at their sizes in training.
//!
//! ```sh
//! cargo run --release -p internevo-parallel --example collectives            # four threads
//! cargo build --release -p internevo-parallel --features mpi --example collectives
//! OMPI_MCA_mpi_yield_when_idle=1 mpirun -n 4 --oversubscribe target/release/examples/collectives
//! ```

use std::{error::Error, sync::Arc, time::Instant};

use internevo_parallel::{
    comm::{Buffer, CommError, Communicator, ReduceOp, run_ranks},
    launch::{Launch, Launcher},
};

/// Bytes of a buffer: a scalar, a small bucket, a large one.
const SIZES: [usize; 3] = [4, 1 << 20, 64 << 20];
const REPEATS: usize = 11;

fn main() -> Result<(), Box<dyn Error>> {
    match Launch::detect(|name| std::env::var(name).ok())?.launcher {
        Launcher::Mpirun => under_mpi(),
        _ => Ok(run_ranks(4, measure).map(drop)?),
    }
}

#[cfg(feature = "mpi")]
fn under_mpi() -> Result<(), Box<dyn Error>> {
    use internevo_parallel::comm::{MpiOptions, mpi_world};

    Ok(mpi_world(MpiOptions::default())?.run(measure)?)
}

#[cfg(not(feature = "mpi"))]
fn under_mpi() -> Result<(), Box<dyn Error>> {
    Err("built without the feature `mpi`".into())
}

fn measure(comm: Arc<dyn Communicator>) -> Result<(), CommError> {
    for bytes in SIZES {
        let len = (bytes / 4).next_multiple_of(comm.size());
        let mut buffer = Buffer::F32(vec![1e-9; len]);
        let (mut reduce, mut gather) = (Vec::new(), Vec::new());
        for _ in 0..REPEATS {
            comm.barrier()?;
            let start = Instant::now();
            buffer = comm.all_reduce(buffer, ReduceOp::Sum)?.wait()?;
            reduce.push(start.elapsed().as_secs_f64());
            comm.barrier()?;
            let start = Instant::now();
            buffer = comm.all_gather_in_place(buffer)?.wait()?;
            gather.push(start.elapsed().as_secs_f64());
        }
        if comm.rank() == 0 {
            let (reduce, gather) = (median(reduce) * 1e3, median(gather) * 1e3);
            println!("{bytes:>9} bytes, {} ranks: all_reduce {reduce:.3} ms, all_gather {gather:.3} ms", comm.size());
        }
    }
    Ok(())
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
