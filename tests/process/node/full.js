// A child that has no descriptor to spare once it is told to fill them, until it has been sent so many handles that it could
// not take, or is told to make room.
const fs = require('fs');
const taken = [];
let refused = 0;
let patience = Infinity;
const makeRoom = () => taken.splice(0).forEach((fd) => fs.closeSync(fd));
process.prependListener('internalMessage', (m, handle) => {
  if (m.cmd === 'NODE_HANDLE' && !handle && ++refused === patience) makeRoom();
});
process.on('message', (m, handle) => {
  if (m.fill) {
    patience = m.patience || patience;
    try {
      for (;;) taken.push(fs.openSync('/dev/null'));
    } catch (e) {
      return process.send(e.code);
    }
  }
  if (m.room) makeRoom();
  if (handle) handle.end('written by node');
  process.send({ echo: m, handle: handle ? handle.constructor.name : null, refused });
});
