class Q3eLocal < Formula
  desc "Qwen3-Embedding on a laptop: semantic search and an embedding server, offline"
  homepage "@HOME@"
  url "@ARCHIVE_URL@"
  sha256 "@ARCHIVE_SHA256@"
  license "Apache-2.0"

  depends_on "python@3.13"

  # pip compiles llama.cpp (with Metal on a Mac) and the kernels, and brings cmake and ninja for it.
  def install
    ENV["CMAKE_ARGS"] = "-DLLAVA_BUILD=OFF"
    system "python3.13", "-m", "venv", libexec
    system libexec/"bin/python", "-m", "pip", "install", "--no-cache-dir",
           "--constraint", "constraints.txt", "#{buildpath}[all]"
    bin.install_symlink libexec/"bin/q3e-local"
    generate_completions_from_executable(bin/"q3e-local", "completion")
  end

  service do
    run [opt_bin/"q3e-local", "serve"]
    keep_alive true
    log_path var/"log/q3e-local.log"
    error_log_path var/"log/q3e-local.log"
  end

  test do
    ENV["Q3E_HOME"] = testpath
    assert_match "\"tokens\":", shell_output("#{bin}/q3e-local embed --text hello -m demo")
  end
end
