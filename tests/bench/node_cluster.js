// The answer of the plugin http's /status, by Node's own cluster: the floor of bench_cluster.
// node node_cluster.js PORT WORKERS
const cluster = require('cluster');
const http = require('http');
const [port, workers] = process.argv.slice(2).map(Number);
if (cluster.isPrimary) {
  let listening = 0;
  cluster.on('listening', () => ++listening === workers && console.log('listening'));
  for (let i = 0; i < workers; ++i) cluster.fork();
} else {
  let requests = 0, connections = 0;
  const server = http.createServer((request, response) => {
    ++requests;
    const body = JSON.stringify({pid: process.pid, requests, connections}) + '\n';
    response.writeHead(200, {
      'Server': 'node',
      'Content-Type': 'application/json',
      'Content-Length': body.length,
      'Cache-Control': 'no-store',
    });
    response.end(body);
  });
  server.on('connection', socket => { ++connections; socket.on('close', () => --connections); });
  server.listen(port, '127.0.0.1');
}
