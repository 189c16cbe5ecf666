// A worker of Node's cluster for the tests: answers with its number; does what it is told.
const cluster = require('cluster');
const http = require('http');
if (!cluster.isWorker) process.exit(9);
const [what, port, address] = process.argv.slice(2);
if (what === 'crash') process.exit(3);
let server;
if (what === 'datagrams') {
  const socket = require('dgram').createSocket('udp4');
  socket.on('message', (text, from) => socket.send(`${text} from ${cluster.worker.id}`, from.port, from.address));
  socket.bind(Number(port), '127.0.0.1');
} else {
  server = http.createServer((request, response) => response.end(String(cluster.worker.id)));
  server.on('error', (e) => process.send({ code: e.code }));
  if (what === 'come_and_go') server.on('listening', () => setImmediate(() => cluster.worker.disconnect()));
  server.listen(Number(port), address);
}
process.on('message', (m) => {
  if (m === 'leave') cluster.worker.disconnect();
  else if (m === 'close') server.close(() => process.send('closed'));
  else process.send({ echo: m });
});
