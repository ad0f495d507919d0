#!/usr/bin/env bash
# The GPU kernels on a machine with an NVIDIA card: every kernel against f64, its time, and PyTorch's kernels beside it.
# Nothing is installed or compiled there: the program is built elsewhere and carried, compressed.
#
#   benches/gpu.sh build [FOLDER]          here: builds FOLDER/gpu.xz (default: gpu-bench); needs LLVM 23 (CONTRIBUTING.md) and
#                                          CUDA's headers, which `cargo xtask codegen` installs
#   benches/gpu.sh run [FOLDER] [OUT]      there: at most ten minutes; writes OUT/results.json and OUT/results.md
#   benches/gpu.sh dry-run [FOLDER] [OUT]  anywhere: the same without a card, saying what is missing
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
command=${1:?build, run or dry-run}
folder=${2:-gpu-bench}
out=${3:-${OUT:-$folder/out}}

# The headers of tensor cores, which PyTorch's wheels lack: crt/mma.h and what it includes.
headers=(mma.h mma.hpp)

build() {
  local target=${CARGO_TARGET_DIR:-$here/../target} profile=${GPU_BENCH_PROFILE:-release} found=
  for candidate in "${INTERNEVO_CUDA_TOOLKIT:-}" "${CUDA_PATH:-}" "$target"/codegen/venv/lib/python3*/site-packages/nvidia/cu13 /usr/local/cuda; do
    [[ -n $candidate && -e $candidate/include/crt/mma.h ]] && found=$candidate/include/crt && break
  done
  [[ -n $found ]] || { echo "gpu.sh: no include/crt/mma.h; \`cargo xtask codegen\` installs it, or name a toolkit in CUDA_PATH" >&2; exit 2; }
  mkdir -p "$folder/crt"
  cp "${headers[@]/#/$found/}" "$folder/crt/"
  (cd "$here/.." && cargo build --locked --profile "$profile" --package gpu-benches --features cuda --bin gpu)
  [[ $profile == dev ]] && profile=debug
  strip --strip-all -o "$folder/gpu" "$target/$profile/gpu"
  xz --threads=0 --force -6 "$folder/gpu"
  ls -l "$folder/gpu.xz"
}

# cubecl compiles its kernels with NVRTC: the library, and headers under $CUDA_PATH/include. An installed toolkit has both,
# and so do the wheels that PyTorch brings, but for the headers that `build` put into the folder.
find_cuda() {
  local candidates=("${CUDA_PATH:-}" /usr/local/cuda /opt/cuda) wheels
  wheels=$(python3 -c 'import nvidia, os; print("\n".join(os.path.join(p, d) for p in nvidia.__path__ for d in os.listdir(p)))' 2>/dev/null || true)
  while read -r wheel; do candidates+=("$wheel"); done <<<"$wheels"
  for candidate in "${candidates[@]}"; do
    [[ -n $candidate && -e $candidate/include/cuda_fp16.h ]] || continue
    export CUDA_PATH=$candidate
    break
  done
  for candidate in "${candidates[@]}"; do
    for library in "$candidate"/lib64 "$candidate"/lib; do
      compgen -G "$library/libnvrtc.so*" >/dev/null && export LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    done
  done
  if [[ -n ${CUDA_PATH:-} && ! -e $CUDA_PATH/include/crt/mma.h && -d $folder/crt ]]; then
    mkdir -p "$folder/cuda/include"
    cp -rsf "$(realpath "$CUDA_PATH")"/include/. "$(realpath "$folder")/cuda/include/"
    mkdir -p "$folder/cuda/include/crt"
    cp "$folder"/crt/* "$folder/cuda/include/crt/"
    CUDA_PATH=$(realpath "$folder")/cuda
  fi
  echo "headers: ${CUDA_PATH:-none}; libraries: ${LD_LIBRARY_PATH:-as installed}"
}

run() {
  local status=0
  mkdir -p "$out"
  find_cuda
  if [[ $command == run ]]; then
    nvidia-smi --query-gpu=name,memory.total,driver_version,clocks.sm --format=csv,noheader || echo "no nvidia-smi"
  fi
  [[ -e $folder/gpu ]] || xz --decompress --keep --force "$folder/gpu.xz"
  chmod +x "$folder/gpu"
  # 580 s in all: 310 for ours, 230 for the peers, the rest for what was begun before.
  timeout 330 "$folder/gpu" --out "$out" --seconds "${GPU_BENCH_OURS:-280}" 2>&1 | tee "$out/ours.log" || status=$?
  local flags=(--seconds "${GPU_BENCH_PEERS:-200}")
  [[ $command == dry-run ]] && flags+=(--dry-run)
  timeout 240 python3 "$here/gpu/peers.py" "$out/peers.json" "${flags[@]}" 2>&1 | tee "$out/peers.log" || true
  python3 "$here/gpu/report.py" "$out"
  cat "$out/results.md"
  return "$status"
}

if [[ $command != build && ! -e $folder/gpu && ! -e $folder/gpu.xz ]]; then
  echo "gpu.sh: no $folder/gpu.xz; make it with: benches/gpu.sh build $folder" >&2
  exit 2
fi
case $command in
  build) build ;;
  run) run ;;
  dry-run) run || echo "dry run: the bench ended with $? (2: no card)" ;;
  *) echo "gpu.sh: build, run or dry-run, not $command" >&2; exit 2 ;;
esac
