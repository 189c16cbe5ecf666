// A worker of Node's cluster for the tests: answers with its number; does what it is told, and what its first argument says.
const cluster = require('cluster');
const fs = require('fs');
const http = require('http');
const net = require('net');
if (!cluster.isWorker) process.exit(9);
const [what, port, address] = process.argv.slice(2);
if (what === 'crash') process.exit(3);
const taken = [];
const takeAllDescriptors = () => {
  try {
    for (;;) taken.push(fs.openSync('/dev/null'));
  } catch (e) {
    return e.code;
  }
};
if (what === 'full') takeAllDescriptors();
let server;
if (what === 'idle') {
  setInterval(() => {}, 1e9);
  process.send('up');
} else if (what === 'datagrams') {
  const socket = require('dgram').createSocket('udp4');
  socket.on('message', (text, from) => socket.send(`${text} from ${cluster.worker.id}`, from.port, from.address));
  socket.bind(Number(port), '127.0.0.1');
} else {
  server = http.createServer((request, response) => response.end(String(cluster.worker.id)));
  server.on('error', (e) => process.send({ code: e.code }));
  if (what === 'come_and_go') server.on('listening', () => setImmediate(() => cluster.worker.disconnect()));
  if (what === 'come_and_crash') server.on('listening', () => setImmediate(() => process.exit(3)));
  if (what === 'stays') {  // whatever it is told
    const emit = process.emit;
    process.emit = (event, m, ...more) => (m && m.act === 'disconnect') || emit.call(process, event, m, ...more);
  }
  if (what === 'one_at_a_time') server.maxConnections = 1;
  if (what === 'first_dies' && cluster.worker.id === 1)
    process.prependListener('internalMessage', (m) => m.act === 'newconn' && process.kill(process.pid, 'SIGKILL'));
  if (what === 'data' || what === 'late_data') {  // as servers of TLS have
    server._getServerData = () => (what === 'data' || cluster.worker.id > 1 ? { from: cluster.worker.id } : null);
    server._setServerData = (data) => process.send({ data });
  }
  if (what === 'path') server.listen(port);
  else if (what === 'path_for_all') server.listen({ path: port, readableAll: true, writableAll: true });
  else if (what === 'backlog') server.listen({ port: Number(port), host: address, backlog: 7 });
  else if (what === 'descriptor') server.listen({ fd: Number(port) });
  else server.listen({ port: Number(port), host: address, ipv6Only: what === 'six_only' });
  if (what === 'twice') http.createServer((_, response) => response.end('second')).listen(Number(port), address);
}
process.on('message', (m, socket) => {
  if (socket) socket.end(`${m} by ${cluster.worker.id}`);
  else if (m === 'give') {  // a connection to this very cluster
    const client = net.connect(server.address().port, '127.0.0.1', () => process.send('given', client));
  } else if (m === 'fill') process.send(takeAllDescriptors());
  else if (m === 'room') {
    taken.splice(0).forEach((fd) => fs.closeSync(fd));
    process.send('has room');
  } else if (m === 'leave') cluster.worker.disconnect();
  else if (m.block) {  // until there is something to be read
    process.send('blocks', () => fs.readSync(fs.openSync(m.block), Buffer.alloc(1)));
  } else if (m === 'close') server.close(() => process.send('closed'));
  else process.send({ echo: m });
});
