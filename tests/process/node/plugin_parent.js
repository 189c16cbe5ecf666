// A parent that is real Node, of `bulkhead node` with a plugin: node plugin_parent.js BULKHEAD PLUGIN. Prints all that came.
const { fork } = require('child_process');
const net = require('net');
const [execPath, plugin] = process.argv.slice(2);
const child = fork(plugin, ['--memory', '512M'], { execPath, execArgv: ['node'] });
const seen = [];
const steps = [
  () => child.send({ id: 1, method: 'echo', params: [{ text: 'grüße', list: [1, null, 2.5] }] }),
  () => child.send({ id: 'two', method: 'no_such_method' }),
  () => child.send({ id: 3, method: 'die_of', params: [1] }),
  () => child.send({ id: 4, method: 'echo', params: ['after the crash'] }),
  () => child.send(['nonsense']),
  () => child.send({ id: 6, method: 'sleep_ms', params: [60000], timeout: 50 }),
  () => {
    const server = net.createServer({ pauseOnConnect: true }, (socket) => {
      server.close();
      client.end('by a socket', () => setImmediate(() => child.send({ id: 7, method: 'read_handle' }, socket)));
    }).listen(0, '127.0.0.1');
    const client = new net.Socket();
    server.on('listening', () => client.connect(server.address().port, '127.0.0.1'));
  },
  () => child.send({ id: 8, method: 'emit', params: ['tick', { a: 1 }, 1] }),
  () => {},
  () => child.disconnect(),
];
child.on('message', (message) => {
  seen.push(message);
  const next = steps.shift();
  if (next) next();
});
child.on('exit', (code, signal) => process.stdout.write(JSON.stringify({ seen, code, signal }), () => process.exit(0)));
