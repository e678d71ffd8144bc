"use strict";
// The page is taken anew whenever the run has written something.
(() => {
  let seen;
  const look = async () => {
    try {
      const state = await (await fetch("/state")).text();
      if (seen !== undefined && state !== seen) location.reload();
      seen = state;
    } catch {
      // The watcher was stopped; the page stays as it is.
    }
    setTimeout(look, 2000);
  };
  look();
})();
