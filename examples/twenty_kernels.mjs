// Twenty Jupyter kernels for a program in Node. They start from one template, and end with this program.
//
//   node twenty_kernels.mjs DIRECTORY PYTHON
//
// writes their connection files into DIRECTORY, and runs until its standard input ends.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { createInterface } from "node:readline";

const [directory, python] = process.argv.slice(2);
const path = `${directory}/keeper.socket`;
const modules = ["ipykernel.kernelapp", "ipykernel.zmqshell", "ipykernel.debugger", "sqlite3", "psutil"];
const keeper = spawn(
  python,
  ["-m", "anyfork", "keep", "--socket", path, ...modules.flatMap((name) => ["--preload", name])],
  { stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, PYDEVD_DISABLE_FILE_VALIDATION: "1" } },
);
await once(keeper.stdout, "data"); // it says that it listens

const host = connect(path);
for (let id = 0; id < 20; id++) {
  const argv = ["-f", `${directory}/kernel-${id}.json`];
  const streams = { stdout: "null", stderr: "null" };
  host.write(JSON.stringify({ do: "start", id, module: "ipykernel_launcher", argv, ...streams }) + "\n");
}
process.stdin.on("end", () => host.end()).resume();

for await (const line of createInterface({ input: host })) {
  const { event, id, pid, message } = JSON.parse(line);
  if (event === "started") console.log(`kernel ${id} is process ${pid}`);
  if (event === "error") console.error(`kernel ${id}: ${message}`);
}
keeper.stdin.end();
