// A parent that is real Node, of the program named by its first argument: prints what came of it as JSON.
const { fork } = require('child_process');
const net = require('net');
const mode = process.argv[3];
const child = fork('unused', ['x'], { execPath: process.argv[2], execArgv: [], serialization: mode === 'advanced' ? 'advanced' : 'json' });
const seen = [];
child.on('message', (m, handle) => {
  seen.push(handle ? { ...m, handle: handle.constructor.name } : m);
  if (m.hello) {
    child.send({ text: 'grüße', list: [1, null, { a: 'x'.repeat(200000) }] });
    child.send(null);
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      child.send({ listener: true }, server, () => {
        server.close(); // it has been given away: what still listened here would take connections, too
        child.send({ after: 1 });
        const client = net.connect(port, '127.0.0.1');
        let text = '';
        client.on('data', (d) => (text += d));
        client.on('end', () => { seen.push({ served: text }); child.send({ give: true }); });
      });
    });
  }
  if (handle) { handle.end('bye'); child.disconnect(); }
});
child.on('disconnect', () => seen.push('disconnect'));
// exit() would cut short what a pipe has no room for.
child.on('exit', (code, signal) => process.stdout.write(JSON.stringify({ seen, code, signal }), () => process.exit(0)));
