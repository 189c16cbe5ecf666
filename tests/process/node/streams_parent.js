// A parent that is real Node, of a program that has a stream between the usual ones and its channel: prints what came of it.
const { spawn } = require('child_process');
const child = spawn('/bin/sh', ['-c', 'echo $NODE_CHANNEL_FD >&3; exec "$0"', process.argv[2]], {
  stdio: ['pipe', 'pipe', 'inherit', 'pipe', 'ipc'],
});
const seen = [];
child.stdio[3].on('data', (text) => child.send({ three: text.toString() }));
child.on('message', (m, handle) => {
  seen.push(m);
  if (m.echo) child.send({ give: true });
  if (!handle) return;
  handle.end('bye');
  child.disconnect();
});
child.on('exit', (code, signal) => process.stdout.write(JSON.stringify({ seen, code, signal }), () => process.exit(0)));
