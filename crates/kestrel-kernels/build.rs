//! Compiles the CUDA kernels to PTX, with the compiler and for the architecture that candle's are compiled with.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    cuda::compile()?;
    Ok(())
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::path::PathBuf;

    pub(crate) fn compile() -> Result<(), Box<dyn std::error::Error>> {
        let out = PathBuf::from(std::env::var("OUT_DIR")?);
        cudaforge::KernelBuilder::new()
            .source_dir("src/cuda/kernels")
            // Headers too: a kernel is compiled again when one of them changes.
            .watch(["src/cuda/kernels"])
            .args(["-std=c++17", "-O3"])
            .build_ptx()?
            .write(out.join("ptx.rs"))?;
        Ok(())
    }
}
