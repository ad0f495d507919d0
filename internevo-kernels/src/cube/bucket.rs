//! Many tensors copied into one flat buffer and back, with a cast on the way: gradients and parameters packed for communication.
//! One launch serves as many tensors as the device binds at once.
//!
//! A bucket holds its tensors one after the other, without gaps. Loads are 16 bytes of the narrower type for the tensors whose
//! length and place in the bucket allow it; the others have launches of their own.

use super::{Buffer, Client, ElemType, Flat, Machine, address_type};
use cubecl::prelude::*;

/// Tensors that share a launch at most; every number of them is a kernel of its own.
const GROUP: usize = 16;

/// Bindings of a launch that are not tensors: the bucket, and what cubecl passes along.
const OTHER_BUFFERS: usize = 2;

/// A bucket of type `elem` with the elements of all `tensors`, which are of one type.
///
/// # Panics
/// If there are no tensors or their types differ.
pub fn gather(client: &Client, tensors: &[&Buffer], elem: ElemType) -> Buffer {
    let bucket = Buffer::empty(client, tensors.iter().map(|tensor| tensor.len).sum(), elem);
    for group in Group::all(client, tensors, &bucket) {
        let Flat { count, dim, .. } = group.launch(client);
        // SAFETY: a unit beyond the last load of the group does nothing; the others read the one tensor whose range theirs is
        // in, and every tensor has a part of the bucket to itself.
        unsafe {
            gather_kernel::launch_unchecked(
                client,
                count,
                dim,
                address_type(&[&bucket]),
                group.vector,
                group.tensors.iter().map(|tensor| tensor.arg()).collect(),
                group.ends.iter().copied().collect(),
                group.places.iter().copied().collect(),
                bucket.arg(),
                group.tensors[0].elem,
                elem,
            );
        }
    }
    bucket
}

/// Writes the elements of `bucket` back over `tensors`, which are of one type.
///
/// # Panics
/// If there are no tensors, their types differ, or they have another number of elements.
pub fn scatter(client: &Client, bucket: &Buffer, tensors: &[&Buffer]) {
    for group in Group::all(client, tensors, bucket) {
        let Flat { count, dim, .. } = group.launch(client);
        // SAFETY: as in `gather`, with the roles exchanged; no two tensors share memory, or a caller would lose elements.
        unsafe {
            scatter_kernel::launch_unchecked(
                client,
                count,
                dim,
                address_type(&[bucket]),
                group.vector,
                group.tensors.iter().map(|tensor| tensor.arg()).collect(),
                group.ends.iter().copied().collect(),
                group.places.iter().copied().collect(),
                bucket.arg(),
                bucket.elem,
                group.tensors[0].elem,
            );
        }
    }
}

/// Tensors that share a launch.
struct Group<'a> {
    tensors: Vec<&'a Buffer>,
    /// Elements per load.
    vector: usize,
    /// Up to which unit each tensor is copied, a load by a unit.
    ends: Vec<usize>,
    /// Where each tensor begins in the bucket, in loads.
    places: Vec<usize>,
}

impl<'a> Group<'a> {
    fn all(client: &Client, tensors: &[&'a Buffer], bucket: &Buffer) -> Vec<Self> {
        let elem = tensors.first().expect("a bucket of at least one tensor").elem;
        let len: usize = tensors.iter().map(|tensor| tensor.len).sum();
        assert_eq!(len, bucket.len, "elements of the tensors and of their bucket");
        assert!(tensors.iter().all(|tensor| tensor.elem == elem), "the tensors of a bucket are of one type");
        let machine = Machine::of(client);
        let narrower = if elem.size() < bucket.elem.size() { elem } else { bucket.elem };
        let size = GROUP.min(machine.max_buffers.saturating_sub(OTHER_BUFFERS)).max(1);
        let mut groups: Vec<Self> = Vec::new();
        let mut start = 0;
        for tensor in tensors.iter().copied().filter(|tensor| tensor.len > 0) {
            let vector = machine.vector(narrower, tensor.len).min(machine.vector(narrower, start));
            let open = groups.iter_mut().find(|group| group.vector == vector && group.tensors.len() < size);
            match open {
                Some(group) => group.push(tensor, start),
                None => groups.push(Self::of(tensor, start, vector)),
            }
            start += tensor.len;
        }
        groups
    }

    fn of(tensor: &'a Buffer, start: usize, vector: usize) -> Self {
        let mut group = Self { tensors: Vec::new(), vector, ends: Vec::new(), places: Vec::new() };
        group.push(tensor, start);
        group
    }

    /// Adds a tensor that begins `start` elements into the bucket.
    fn push(&mut self, tensor: &'a Buffer, start: usize) {
        self.ends.push(self.ends.last().unwrap_or(&0) + tensor.len / self.vector);
        self.places.push(start / self.vector);
        self.tensors.push(tensor);
    }

    /// A unit for each load of all tensors.
    fn launch(&self, client: &Client) -> Flat {
        Machine::of(client).flat(*self.ends.last().expect("no group is empty"), 1)
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn gather_kernel<I: Float, O: Float, N: Size>(
    tensors: Sequence<Box<[Vector<I, N>]>>,
    ends: Sequence<usize>,
    places: Sequence<usize>,
    bucket: &mut [Vector<O, N>],
    #[define(I)] _from: ElemType,
    #[define(O)] _to: ElemType,
) {
    let i = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    let mut start = 0usize;
    #[unroll]
    for t in 0..comptime!(tensors.len()) {
        let end = ends[t];
        if i >= start && i < end {
            bucket[places[t] + i - start] = Vector::cast_from(tensors[t][i - start]);
        }
        start = end;
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn scatter_kernel<I: Float, O: Float, N: Size>(
    tensors: &mut Sequence<Box<[Vector<O, N>]>>,
    ends: Sequence<usize>,
    places: Sequence<usize>,
    bucket: &[Vector<I, N>],
    #[define(I)] _from: ElemType,
    #[define(O)] _to: ElemType,
) {
    let i = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    let mut start = 0usize;
    #[unroll]
    for t in 0..comptime!(tensors.len()) {
        let end = ends[t];
        if i >= start && i < end {
            let tensor = tensors.index_mut(t);
            tensor[i - start] = Vector::cast_from(bucket[places[t] + i - start]);
        }
        start = end;
    }
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;
    use crate::cube::testing::{clients, floats, poison, random};
    use crate::testing::Random;

    /// Tensors of these lengths, with their values.
    fn tensors(client: &Client, lengths: &[usize], elem: ElemType) -> (Vec<Vec<f64>>, Vec<Buffer>) {
        let mut generator = Random::fresh();
        lengths.iter().map(|len| random(&mut generator, client, *len, elem)).unzip()
    }

    #[test]
    fn a_bucket_holds_its_tensors_in_order_and_gives_them_back() {
        let mut generator = Random::fresh();
        let odd: Vec<usize> = (0..19).map(|_| generator.between(1, 300)).collect();
        let even = vec![64; 2 * GROUP];
        for client in clients() {
            for (from, to) in
                floats(&client).into_iter().flat_map(|from| floats(&client).into_iter().map(move |to| (from, to)))
            {
                for lengths in [&odd, &even, &vec![8, 0, 1024, 3, 16], &vec![5]] {
                    let (values, parts) = tensors(&client, lengths, from);
                    let parts: Vec<&Buffer> = parts.iter().collect();
                    poison(&client, lengths.iter().sum(), to);
                    let bucket = gather(&client, &parts, to);
                    // What `to` makes of the values, element by element: the cast rounds as the host does.
                    let all: Vec<f32> = values.concat().iter().map(|value| *value as f32).collect();
                    let rounded = Buffer::from_f32(&client, &all, to).read_f32(&client).unwrap();
                    assert_eq!(bucket.read_f32(&client).unwrap(), rounded, "{lengths:?} {from:?} to {to:?}");
                    let back: Vec<_> =
                        lengths.iter().map(|len| Buffer::from_f32(&client, &vec![f32::NAN; *len], from)).collect();
                    scatter(&client, &bucket, &back.iter().collect::<Vec<_>>());
                    let returned: Vec<f32> = back.iter().flat_map(|part| part.read_f32(&client).unwrap()).collect();
                    let expected = Buffer::from_f32(&client, &rounded, from).read_f32(&client).unwrap();
                    assert_eq!(returned, expected, "{lengths:?} {to:?} back to {from:?}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "elements of the tensors and of their bucket")]
    fn a_bucket_of_another_size_is_refused() {
        let client = clients().remove(0);
        let [bucket, tensor] = [4, 5].map(|len| Buffer::empty(&client, len, crate::cube::F32));
        scatter(&client, &bucket, &[&tensor]);
    }
}
